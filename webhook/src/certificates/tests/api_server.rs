//! As much of an API server as the certificates ask for: objects by path, with resource versions and their conflicts. For faults and
//! races that a real one cannot be made to show.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tollgate_shared::contract::WEBHOOK_NAME;

use super::super::SECRET;

pub(super) const SECRETS: &str = "/api/v1/namespaces/tollgate-system/secrets";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
pub(super) const KINDS: [&str; 2] = [
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
];

#[derive(Clone, Default)]
pub(in crate::certificates) struct ApiServer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    is_down: bool,
}

impl ApiServer {
    /// One with our webhook configurations in it, as `kubectl apply` leaves them.
    pub(in crate::certificates) fn new() -> Self {
        let server = Self::default();
        for kind in KINDS {
            let webhooks =
                json!([{"name": "a", "clientConfig": {}}, {"name": "b", "clientConfig": {}}]);
            let object = json!({"metadata": {"name": WEBHOOK_NAME}, "webhooks": webhooks});
            server.put(&configuration(kind), object);
        }
        server
    }

    pub(in crate::certificates) fn client(&self) -> Client {
        let server = self.clone();
        let answer = move |request| server.clone().answer(request);
        Client::new(tower::service_fn(answer), "default")
    }

    pub(super) fn is_down(&self, is_down: bool) {
        self.0.lock().unwrap().is_down = is_down;
    }

    pub(super) fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().put(path, object);
    }

    pub(super) fn remove(&self, path: &str) {
        self.0.lock().unwrap().objects.remove(path);
    }

    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    /// Writes the `caBundle` of every entry.
    pub(in crate::certificates) fn trust(&self, bundle: &[u8]) {
        for kind in KINDS {
            let path = configuration(kind);
            let mut object = self.get(&path).unwrap();
            for webhook in object["webhooks"].as_array_mut().unwrap() {
                webhook["clientConfig"]["caBundle"] = STANDARD.encode(bundle).into();
            }
            self.put(&path, object);
        }
    }

    /// The Secret's data.
    pub(super) fn secret(&self) -> Value {
        self.get(&secret()).unwrap()["data"].take()
    }

    /// What both configurations trust; panics unless it is the same everywhere.
    pub(super) fn bundle(&self) -> String {
        let mut bundles: Vec<String> = Vec::new();
        for kind in KINDS {
            for webhook in self.get(&configuration(kind)).unwrap()["webhooks"]
                .as_array()
                .unwrap()
            {
                bundles.push(
                    webhook["clientConfig"]["caBundle"]
                        .as_str()
                        .unwrap()
                        .to_owned(),
                );
            }
        }
        bundles.dedup();
        assert_eq!(bundles.len(), 1);
        bundles.remove(0)
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, std::io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let sent = serde_json::from_slice(&body).unwrap_or_default();
        // Others come in between.
        tokio::task::yield_now().await;
        let mut state = self.0.lock().unwrap();
        if state.is_down {
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        let (code, answer) = match state.serve(&head.method, head.uri.path(), sent) {
            Ok(object) => (StatusCode::OK, object),
            Err((code, reason)) => {
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "reason": reason, "code": code.as_u16(),
                });
                (code, status)
            }
        };
        let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
        *response.status_mut() = code;
        Ok(response)
    }
}

pub(super) fn secret() -> String {
    format!("{SECRETS}/{SECRET}")
}

pub(super) fn configuration(kind: &str) -> String {
    format!("{CONFIGURATIONS}/{kind}/{WEBHOOK_NAME}")
}

/// Code and reason of a `Status`.
type Refusal = (StatusCode, &'static str);

impl State {
    fn serve(&mut self, method: &Method, path: &str, sent: Value) -> Result<Value, Refusal> {
        if *method == Method::POST {
            let path = format!("{path}/{}", sent["metadata"]["name"].as_str().unwrap());
            if self.objects.contains_key(&path) {
                return Err((StatusCode::CONFLICT, "AlreadyExists"));
            }
            return Ok(self.put(&path, sent));
        }
        let mut found = self
            .objects
            .get(path)
            .cloned()
            .ok_or((StatusCode::NOT_FOUND, "NotFound"))?;
        match *method {
            Method::GET => Ok(found),
            Method::PUT => {
                let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
                if version(&sent) != version(&found) {
                    return Err((StatusCode::CONFLICT, "Conflict"));
                }
                Ok(self.put(path, sent))
            }
            // Strategic: entries of the same name are merged.
            Method::PATCH => {
                let mut patched = sent["webhooks"].as_array().unwrap().clone();
                for webhook in found["webhooks"].as_array_mut().unwrap() {
                    if let Some(entry) = patched
                        .iter_mut()
                        .find(|entry| entry["name"] == webhook["name"])
                    {
                        webhook["clientConfig"]["caBundle"] =
                            entry["clientConfig"]["caBundle"].take();
                    }
                }
                Ok(self.put(path, found))
            }
            _ => Err((StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed")),
        }
    }

    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}
