//! The values of one text, in one list of nodes of 12 bytes: a node says where in the text its string stands, or where in the list
//! its own values. A tree of maps and strings takes up to thirty times as much for the many small objects that pods are made of,
//! and an allocation for each.

use std::fmt;
use std::ops::Range;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Error, Value};

use super::Json;

/// More nodes than this have no place: 8 MiB of them. A pod of 2.5 MB in variables of 25 bytes has 500,000.
const MOST: usize = 8 * 1024 * 1024 / size_of::<Node>();

/// A part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    from: u32,
    len: u32,
}

impl Span {
    /// `None` where 4 GiB do not hold it.
    fn new(from: usize, len: usize) -> Option<Self> {
        Some(Self {
            from: from.try_into().ok()?,
            len: len.try_into().ok()?,
        })
    }

    const fn range(self) -> Range<usize> {
        let from = self.from as usize;
        from..from + self.len as usize
    }
}

/// One value, or the key of a member.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    /// Numbers as bytes: an integer would make every node as large as its alignment wants.
    Unsigned([u8; 8]),
    Signed([u8; 8]),
    Float([u8; 8]),
    /// A string as the text has it.
    Plain(Span),
    /// A string that the text has with escapes.
    Decoded(Span),
    /// Its items.
    List(Span),
    /// Its members by key, each the key and the value.
    Object(Span),
}

/// What a text says.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    text: &'a str,
    decoded: String,
    nodes: Vec<Node>,
    root: Node,
}

impl<'a> Tree<'a> {
    /// Reads one JSON value.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(bytes).map_err(de::Error::custom)?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let tree = Builder::new(text, MOST).build(&mut deserializer)?;
        deserializer.end()?;
        Ok(tree)
    }

    /// The same of a value that was read before.
    ///
    /// # Errors
    /// It is too large.
    pub(crate) fn of(value: &Value) -> Result<Self, Error> {
        Builder::new("", usize::MAX).build(value)
    }

    /// The whole value.
    pub(crate) const fn root(&self) -> Json<'_> {
        Json::new(self, self.root)
    }

    /// The string of a node; empty for one that is none.
    pub(super) fn string(&self, node: Node) -> &str {
        let part = match node {
            Node::Plain(span) => self.text.get(span.range()),
            Node::Decoded(span) => self.decoded.get(span.range()),
            _ => None,
        };
        part.unwrap_or_default()
    }

    /// The nodes of a list or an object.
    pub(super) fn nodes(&self, span: Span) -> &[Node] {
        self.nodes.get(span.range()).unwrap_or_default()
    }
}

/// A tree that is being read.
struct Builder<'a> {
    tree: Tree<'a>,
    /// What was read of lists and objects that have not ended.
    open: Vec<Node>,
    most: usize,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str, most: usize) -> Self {
        let nodes = nodes_in(text).min(most);
        Self {
            tree: Tree {
                text,
                decoded: String::new(),
                nodes: Vec::with_capacity(nodes),
                root: Node::Null,
            },
            open: Vec::with_capacity(nodes),
            most,
        }
    }

    fn build<'de, D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Tree<'a>, D::Error> {
        self.tree.root = Next(&mut self).deserialize(deserializer)?;
        Ok(self.tree)
    }

    fn push<E: de::Error>(&mut self, node: Node) -> Result<(), E> {
        if self.tree.nodes.len() + self.open.len() >= self.most {
            return Err(too_large());
        }
        self.open.push(node);
        Ok(())
    }

    fn string<E: de::Error>(&mut self, string: &str) -> Result<Node, E> {
        if let Some(span) = place(self.tree.text, string) {
            return Ok(Node::Plain(span));
        }
        let span = Span::new(self.tree.decoded.len(), string.len()).ok_or_else(too_large)?;
        self.tree.decoded.push_str(string);
        Ok(Node::Decoded(span))
    }

    /// Ends the list or object whose nodes are the open ones from `from` on.
    fn close<E: de::Error>(&mut self, from: usize) -> Result<Span, E> {
        let nodes = &mut self.tree.nodes;
        let begin = nodes.len();
        nodes.extend(self.open.drain(from..));
        Span::new(begin, nodes.len() - begin).ok_or_else(too_large)
    }

    /// Sorts the members that are the open nodes from `from` on. No key is there twice.
    fn sort<E: de::Error>(&mut self, from: usize) -> Result<(), E> {
        let tree = &self.tree;
        let members = self.open.get_mut(from..).unwrap_or_default();
        let (members, _) = members.as_chunks_mut::<2>();
        members.sort_unstable_by(|[a, _], [b, _]| tree.string(*a).cmp(tree.string(*b)));
        for [[a, _], [b, _]] in members.array_windows() {
            let (a, b) = (tree.string(*a), tree.string(*b));
            if a == b {
                return Err(E::custom(format_args!("the key {a:?} is there twice")));
            }
        }
        Ok(())
    }
}

/// No fewer nodes than a text has: before each stands one of these, but before the first. A list that grows is copied and leaves
/// holes; one that is too long costs nothing, since memory that nobody writes to is none.
fn nodes_in(text: &str) -> usize {
    let before = |byte: &&u8| matches!(byte, b',' | b':' | b'[' | b'{');
    text.as_bytes().iter().filter(before).count() + 1
}

fn too_large<E: de::Error>() -> E {
    E::custom("it has too many values")
}

/// Where `part` stands in `text`, if it is a part of it and not a copy.
fn place(text: &str, part: &str) -> Option<Span> {
    let from = part.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    let found = text.get(from..from.checked_add(part.len())?)?;
    std::ptr::eq(found, part)
        .then(|| Span::new(from, part.len()))
        .flatten()
}

/// Reads the next value into a node.
struct Next<'b, 'a>(&'b mut Builder<'a>);

impl<'de> DeserializeSeed<'de> for Next<'_, '_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Next<'_, '_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Signed(value.to_ne_bytes()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Unsigned(value.to_ne_bytes()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        match value.is_finite() {
            true => Ok(Node::Float(value.to_ne_bytes())),
            false => Err(E::custom("a number that is none")),
        }
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        self.0.string(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let from = self.0.open.len();
        while let Some(item) = items.next_element_seed(Next(self.0))? {
            self.0.push(item)?;
        }
        self.0.close(from).map(Node::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let from = self.0.open.len();
        while let Some(key) = members.next_key_seed(Next(self.0))? {
            self.0.push(key)?;
            let value = members.next_value_seed(Next(self.0))?;
            self.0.push(value)?;
        }
        self.0.sort(from)?;
        self.0.close(from).map(Node::Object)
    }
}
