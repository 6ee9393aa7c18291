//! JSON as strictly as admission needs it: one value, at most 128 levels deep (serde_json's own limit), and no object with the
//! same key twice. Two parsers may read a repeated key differently, and the one that is not ours creates the pod.
//!
//! And in as little memory as admission can spare: a review of 2.5 MB is read in place (`docs/adr/0080-reviews-are-read-in-place.md`).

mod tree;

use std::fmt;

use serde_json::{Map, Number, Value};

use self::tree::Node;
pub(crate) use self::tree::Tree;

/// A value of a [`Tree`].
#[derive(Clone, Copy)]
pub(crate) struct Json<'a> {
    tree: &'a Tree<'a>,
    node: Node,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind<'a> {
    Null,
    Bool(bool),
    Number(Number),
    String(&'a str),
    List(List<'a>),
    Object(Object<'a>),
}

/// The items of a list.
#[derive(Clone, Copy)]
pub(crate) struct List<'a> {
    tree: &'a Tree<'a>,
    nodes: &'a [Node],
}

/// The members of an object.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a> {
    tree: &'a Tree<'a>,
    nodes: &'a [[Node; 2]],
}

impl<'a> Json<'a> {
    const fn new(tree: &'a Tree<'a>, node: Node) -> Self {
        Self { tree, node }
    }

    pub(crate) fn kind(self) -> Kind<'a> {
        let tree = self.tree;
        match self.node {
            Node::Null => Kind::Null,
            Node::Bool(value) => Kind::Bool(value),
            Node::Unsigned(bytes) => Kind::Number(u64::from_ne_bytes(bytes).into()),
            Node::Signed(bytes) => Kind::Number(i64::from_ne_bytes(bytes).into()),
            // Never null: what is no number was refused when it was read.
            Node::Float(bytes) => {
                Number::from_f64(f64::from_ne_bytes(bytes)).map_or(Kind::Null, Kind::Number)
            }
            Node::Plain(_) | Node::Decoded(_) => Kind::String(tree.string(self.node)),
            Node::List(span) => Kind::List(List {
                tree,
                nodes: tree.nodes(span),
            }),
            Node::Object(span) => Kind::Object(Object {
                tree,
                nodes: tree.nodes(span).as_chunks().0,
            }),
        }
    }

    /// A member of an object.
    pub(crate) fn get(self, key: &str) -> Option<Self> {
        self.as_object()?.get(key)
    }

    /// What lies at a path of keys, as `/metadata/labels`.
    pub(crate) fn pointer(self, path: &str) -> Option<Self> {
        path.split('/').skip(1).try_fold(self, Self::get)
    }

    pub(crate) fn as_str(self) -> Option<&'a str> {
        match self.node {
            Node::Plain(_) | Node::Decoded(_) => Some(self.tree.string(self.node)),
            _ => None,
        }
    }

    pub(crate) fn as_list(self) -> Option<List<'a>> {
        match self.kind() {
            Kind::List(list) => Some(list),
            _ => None,
        }
    }

    pub(crate) fn as_object(self) -> Option<Object<'a>> {
        match self.kind() {
            Kind::Object(object) => Some(object),
            _ => None,
        }
    }

    pub(crate) const fn is_null(self) -> bool {
        matches!(self.node, Node::Null)
    }

    /// A list without items.
    pub(crate) const fn no_items(self) -> List<'a> {
        List {
            tree: self.tree,
            nodes: &[],
        }
    }

    /// The same as a value of its own.
    pub(crate) fn to_value(self) -> Value {
        match self.kind() {
            Kind::Null => Value::Null,
            Kind::Bool(value) => value.into(),
            Kind::Number(number) => number.into(),
            Kind::String(text) => text.into(),
            Kind::List(list) => list.iter().map(Self::to_value).collect(),
            Kind::Object(object) => {
                let own = |(key, value): (&str, Self)| (key.to_owned(), value.to_value());
                Value::Object(object.iter().map(own).collect::<Map<_, _>>())
            }
        }
    }
}

impl<'a> List<'a> {
    pub(crate) const fn len(self) -> usize {
        self.nodes.len()
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.nodes.is_empty()
    }

    pub(crate) fn iter(
        self,
    ) -> impl DoubleEndedIterator<Item = Json<'a>> + ExactSizeIterator + Clone {
        let tree = self.tree;
        self.nodes.iter().map(move |node| Json::new(tree, *node))
    }
}

impl<'a> Object<'a> {
    pub(crate) const fn is_empty(self) -> bool {
        self.nodes.is_empty()
    }

    pub(crate) fn get(self, key: &str) -> Option<Json<'a>> {
        let place = |[own, _]: &[Node; 2]| self.tree.string(*own).cmp(key);
        let index = self.nodes.binary_search_by(place).ok()?;
        let [_, value] = self.nodes.get(index)?;
        Some(Json::new(self.tree, *value))
    }

    /// By key.
    pub(crate) fn iter(
        self,
    ) -> impl DoubleEndedIterator<Item = (&'a str, Json<'a>)> + ExactSizeIterator + Clone {
        let member =
            move |[key, value]: &[Node; 2]| (self.tree.string(*key), Json::new(self.tree, *value));
        self.nodes.iter().map(member)
    }
}

impl PartialEq for Json<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind()
    }
}

impl PartialEq for List<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl PartialEq for Object<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(f)
    }
}

impl fmt::Debug for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
