//! What a request asks of the API server: verb, group, resource, subresource, namespace and name, resolved exactly as
//! `apiserver/pkg/endpoints/request/requestinfo.go` does. What two parsers could read differently is refused here, so
//! that policy, record and API server always speak of the same call. Pure: no IO, no clock. The raw bytes are forwarded
//! by the caller, never anything rebuilt from here.

mod path;
mod query;
mod selector;
#[cfg(test)]
mod tests;

use std::fmt;

use http::{Method, Uri};

use crate::refusal::{Reason, Refusal};
use query::Query;

pub use query::redact_commands;

/// The verb of a call, as the API server's authorizer and audit log name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Read one object; also a non-resource GET.
    Get,
    /// Read a collection.
    List,
    /// Follow a collection, or one object under the old `/watch/` paths.
    Watch,
    /// POST to a resource.
    Create,
    /// PUT to a resource.
    Update,
    /// PATCH; also a non-resource PATCH.
    Patch,
    /// Delete one object; also a non-resource DELETE.
    Delete,
    /// Delete a collection.
    DeleteCollection,
    /// A non-resource HEAD.
    Head,
    /// A non-resource POST.
    Post,
    /// A non-resource PUT.
    Put,
}

impl Verb {
    /// The word that stands in audit events and RBAC rules.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Head => "head",
            Self::Post => "post",
            Self::Put => "put",
        }
    }

    /// Whether the verb can change an object. A PATCH may also create one (server-side apply).
    #[must_use]
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch | Self::Head)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One call, resolved. Text that does not apply is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The verb.
    pub verb: Verb,
    /// Whether the path names an API resource; otherwise only `verb` and `path` are meaningful.
    pub resource_request: bool,
    /// `api` or `apis`.
    pub api_prefix: String,
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Resource, such as `pods`.
    pub resource: String,
    /// Subresource, such as `log`.
    pub subresource: String,
    /// Namespace. For the resource `namespaces` it is the object's own name, as in the API server.
    pub namespace: String,
    /// Name, from the path or, for `list` and `watch`, from `fieldSelector=metadata.name=…`. Empty for `create`: there it
    /// is in the body.
    pub name: String,
    /// The path, percent-decoded once, without the query.
    pub path: String,
    target: String,
    query: Query,
}

impl Call {
    /// Resolves a request line. `target` is the raw path and query in origin form; nothing of it is normalised.
    ///
    /// # Errors
    /// [`Reason::UnknownMethod`] for a method that the API server gives no verb, [`Reason::AmbiguousPath`] and
    /// [`Reason::BadRequest`] for a path or a query that two parsers could read differently.
    pub fn resolve(method: &Method, target: &str) -> Result<Self, Refusal> {
        let methods = Verbs::of(method)?;
        let (raw_path, raw_query) = target.split_once('?').unwrap_or((target, ""));
        let path = path::decode(raw_path)?;
        let route = path::route(&path)?;
        // What follows `proxy` is the backend's, its query too: the API server passes it on unread.
        let query = if route.opaque_query() {
            Query::opaque(raw_query)?
        } else {
            Query::parse(raw_query)?
        };
        let mut call = Self {
            verb: methods.plain,
            resource_request: false,
            api_prefix: String::new(),
            group: String::new(),
            version: String::new(),
            resource: String::new(),
            subresource: String::new(),
            namespace: String::new(),
            name: String::new(),
            target: target.to_owned(),
            query,
            path: String::new(),
        };
        if let path::Route::Resource(route) = route {
            call.take(&route, methods.resource)?;
        }
        call.path = path;
        Ok(call)
    }

    /// Resolves what an HTTP library parsed. Origin form only: absolute-form and `*` name a host of their own, or none.
    ///
    /// # Errors
    /// As [`Call::resolve`].
    pub fn of_request(method: &Method, uri: &Uri) -> Result<Self, Refusal> {
        if uri.scheme().is_some() || uri.authority().is_some() {
            return Err(Refusal::new(
                Reason::BadRequest,
                "the request target is absolute; send the path alone, without scheme and host",
            ));
        }
        Self::resolve(
            method,
            uri.path_and_query().map_or("", |target| target.as_str()),
        )
    }

    fn take(&mut self, route: &path::Resource<'_>, verb: Verb) -> Result<(), Refusal> {
        self.resource_request = true;
        self.api_prefix = route.prefix.to_owned();
        self.group = route.group.to_owned();
        self.version = route.version.to_owned();
        self.namespace = route.namespace.to_owned();
        self.resource = route.resource.to_owned();
        self.name = route.name.to_owned();
        self.subresource = route.subresource.to_owned();
        if route.watch_prefix {
            // The API server resolves any method here to `watch` and then routes GET alone.
            if verb != Verb::Get {
                return Err(Refusal::new(
                    Reason::UnknownMethod,
                    "paths under /watch/ take GET only; use the path without /watch/",
                ));
            }
            self.verb = Verb::Watch;
            return Ok(());
        }
        self.verb = match verb {
            Verb::Get if self.name.is_empty() => {
                let options = selector::ListOptions::decode(&self.query)?;
                self.name = options.name.unwrap_or_default();
                if options.watch {
                    Verb::Watch
                } else {
                    Verb::List
                }
            }
            Verb::Delete if self.name.is_empty() => Verb::DeleteCollection,
            other => other,
        };
        Ok(())
    }

    /// Whether the API server lets this call run without its request timeout
    /// (`BasicLongRunningRequestCheck` in `pkg/controlplane/apiserver/config.go`).
    #[must_use]
    pub fn is_long_running(&self) -> bool {
        self.verb == Verb::Watch
            || matches!(
                self.subresource.as_str(),
                "attach" | "exec" | "proxy" | "log" | "portforward"
            )
    }

    /// Whether the call is for this resource of this group, whatever the version.
    #[must_use]
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.resource_request && self.group == group && self.resource == resource
    }

    /// First value of a query parameter, as Go's `url.Values.Get` reads it. Always `None` under the subresource `proxy`,
    /// where the query is the backend's.
    #[must_use]
    pub fn query_first(&self, key: &str) -> Option<&str> {
        self.query.all(key).next()
    }

    /// Every value of a query parameter, in order. Keys are case-sensitive.
    pub fn query_all<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> {
        self.query.all(key)
    }

    /// Every `container` of an exec, attach or log call.
    pub fn containers(&self) -> impl Iterator<Item = &str> {
        self.query.all("container")
    }

    /// Every `command` of an exec call: the program and its arguments.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        self.query.all("command")
    }

    /// The raw path and query, as received and as forwarded.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }
}

/// What a method means for a resource and for any other path.
struct Verbs {
    resource: Verb,
    plain: Verb,
}

impl Verbs {
    fn of(method: &Method) -> Result<Self, Refusal> {
        let (resource, plain) = match method.as_str() {
            "GET" => (Verb::Get, Verb::Get),
            "HEAD" => (Verb::Get, Verb::Head),
            "POST" => (Verb::Create, Verb::Post),
            "PUT" => (Verb::Update, Verb::Put),
            "PATCH" => (Verb::Patch, Verb::Patch),
            "DELETE" => (Verb::Delete, Verb::Delete),
            // The API server gives such a method the empty verb, which only a rule for `*` allows.
            _ => {
                return Err(Refusal::new(
                    Reason::UnknownMethod,
                    "the method has no verb in Kubernetes; use GET, HEAD, POST, PUT, PATCH or DELETE in capitals",
                ));
            }
        };
        Ok(Self { resource, plain })
    }
}
