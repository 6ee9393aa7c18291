//! Names resolved in Rust: a static binary has no NSS, and some clouds give the API server by name.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use hickory_resolver::TokioResolver;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Reads `/etc/resolv.conf` and `/etc/hosts` at its first use; most API servers are given by address and never need it.
#[derive(Clone, Default)]
pub(crate) struct Names(Arc<OnceLock<TokioResolver>>);

impl Names {
    fn resolver(&self) -> Result<TokioResolver, Error> {
        if let Some(resolver) = self.0.get() {
            return Ok(resolver.clone());
        }
        let resolver = TokioResolver::builder_tokio()?.build()?;
        Ok(self.0.get_or_init(|| resolver).clone())
    }
}

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let names = self.clone();
        Box::pin(async move {
            let addresses = names.resolver()?.lookup_ip(name.as_str()).await?;
            // The connector puts the port of the URI in place of 0.
            let addresses: Vec<SocketAddr> =
                addresses.iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(addresses.into_iter())
        })
    }
}
