//! What a pod lacks to be as we want it. Mutation applies the plan; validation wants it to hold nothing that matters.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tollgate_shared::contract::{
    CONTAINER, INJECTED_ANNOTATION, Injection, RESERVED_VOLUMES, Settings, VOUCHER_ANNOTATION,
};

use super::agent::Agent;
use super::config::InjectConfig;
use super::patch::{Changes, PatchOp, add, append, escape, prepend};
use super::pod::{Container, Pod, flag, list, text};
use super::select::{Selection, select};
use super::{Context, drift, hazard, reserved, resources, settings, sidecar, token, vouch};
use crate::json::{Json, Tree};
use crate::reason::{Denial, Reason};

/// The API server adds one volume with a token, and a copied pod has one from before. Each is looked for among all mounts, so that
/// thousands would cost seconds.
const MOST_TOKEN_VOLUMES: usize = 8;

/// What a pod needs.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing of ours.
    Leave(Reason),
    /// These changes.
    Change(Changes),
}

/// Plans for one pod, or refuses it.
pub(crate) fn plan(pod: Json<'_>, context: &Context<'_>) -> Result<Outcome, Denial> {
    let pod = Pod::read(pod)?;
    match select(&pod, context)? {
        Selection::Ignore(reason) => Ok(Outcome::Leave(reason)),
        Selection::Leave(reason) => {
            reserved::refuse(&pod)?;
            Ok(Outcome::Leave(reason))
        }
        Selection::LeaveIfTokenFree => {
            reserved::refuse(&pod)?;
            token_free(&pod, context.config)?;
            Ok(Outcome::Leave(Reason::OptedOut))
        }
        Selection::Inject => Plan::new(&pod, context)?.run(),
    }
}

/// Whether a pod that opts out of an enforced namespace may.
fn token_free(pod: &Pod<'_>, config: &InjectConfig) -> Result<(), Denial> {
    token::refuse_all(pod, config)
        .and_then(|()| hazard::refuse_host_access(pod, Injection::Enforced))
        .map_err(|denial| {
            let message = format!(
                "this namespace is enforced, and the pod opts out but is not token-free ({denial}); let it be injected, or \
                 set automountServiceAccountToken: false and remove what is named"
            );
            Denial::new(Reason::NotTokenFree, message)
        })
}

/// Everything that the changes of one pod depend on.
#[derive(Debug)]
struct Plan<'a> {
    pod: &'a Pod<'a>,
    settings: Settings,
    /// The sidecar as it should be.
    sidecar: Value,
    /// The sidecar as it is: its place among the init containers.
    present: Option<(usize, &'a Container<'a>)>,
    /// Names of the API server's token volumes.
    stripped: Vec<&'a str>,
    /// The voucher that is missing.
    voucher: Option<String>,
    /// Where the API server may be said to be.
    api_server: &'a BTreeMap<String, String>,
}

impl<'a> Plan<'a> {
    fn new(pod: &'a Pod<'a>, context: &Context<'a>) -> Result<Self, Denial> {
        let config = context.config;
        let present = reserved::sidecar(pod)?;
        if !pod.ephemeral.is_empty() {
            let message =
                "the pod has ephemeral containers, which only a running pod can get; remove them";
            return Err(Denial::new(Reason::BadRequest, message));
        }
        let wishes = settings::read(pod, config)?;
        let mut settings = wishes.settings.clone();
        hazard::refuse_host_access(pod, context.injection.unwrap_or(Injection::Enforced))?;
        hazard::refuse_sharing(pod, &settings, config.assign_uid)?;
        token::refuse_foreign(pod, config)?;
        let agents = pod.all().filter(|container| container.name != CONTAINER);
        settings.containers = agents.map(|agent| agent.name.to_owned()).collect();
        let resources = resources::resources(pod, &wishes)?;
        let mut stripped = Vec::new();
        for volume in &pod.volumes {
            if !RESERVED_VOLUMES.contains(&volume.name) && token::is_api_server_volume(volume)? {
                stripped.push(volume.name);
            }
            if stripped.len() > MOST_TOKEN_VOLUMES {
                let message = format!(
                    "the pod has more than {MOST_TOKEN_VOLUMES} volumes with the API server's own token; remove them, the sidecar has one"
                );
                return Err(Denial::new(Reason::BadRequest, message));
            }
        }
        Ok(Self {
            sidecar: sidecar::container(config, &settings, resources),
            voucher: vouch::due(pod, context)?,
            pod,
            settings,
            present,
            stripped,
            api_server: &config.api_server,
        })
    }

    fn run(self) -> Result<Outcome, Denial> {
        let mut changes = Changes::default();
        self.automount(&mut changes)?;
        self.volumes(&mut changes)?;
        for container in self
            .pod
            .all()
            .filter(|container| container.name != CONTAINER)
        {
            let agent = Agent {
                container,
                stripped: &self.stripped,
                port: self.settings.port,
            };
            agent.prepare(&mut changes)?;
        }
        // Last of the containers: it moves the indexes of the others.
        self.sidecar(&mut changes)?;
        self.annotations(&mut changes)?;
        changes.checked().map(Outcome::Change)
    }

    /// Without the flag the API server's second pass brings the token back.
    fn automount(&self, changes: &mut Changes) -> Result<(), Denial> {
        let key = "automountServiceAccountToken";
        let off = self.pod.spec.get(key).is_some_and(|value| !value.is_null())
            && !flag(self.pod.spec, key)?;
        if !off {
            let op = add(format!("/spec/{key}"), Value::from(false));
            changes.must(op, Reason::TokenLeft, format!("spec.{key} is not false"));
        }
        Ok(())
    }

    fn volumes(&self, changes: &mut Changes) -> Result<(), Denial> {
        let mut missing = Vec::new();
        for (name, wanted) in sidecar::volumes() {
            match self.pod.volumes.iter().find(|volume| volume.name == name) {
                None => missing.push(wanted.into()),
                Some(volume)
                    if drift::covers(Some(volume.value), Some(Tree::of(&wanted)?.root())) => {}
                // Ours of another release; without our sidecar it is somebody else's.
                Some(volume) if self.present.is_some() => {
                    let path = format!("/spec/volumes/{}", volume.index);
                    let message = format!("volume {name} is not as injection makes it");
                    let op = PatchOp::Replace {
                        path,
                        value: wanted.into(),
                    };
                    changes.must(op, Reason::SidecarDrift, message);
                }
                Some(_) => return Err(reserved::volume_denial(name)),
            }
        }
        for volume in self.pod.volumes.iter().rev() {
            if self.stripped.contains(&volume.name) {
                let path = format!("/spec/volumes/{}", volume.index);
                let message = format!("volume {} holds the API server's token", volume.name);
                changes.must(PatchOp::Remove { path }, Reason::TokenLeft, message);
            }
        }
        let absent = list(self.pod.spec, "volumes")?.absent;
        for op in append("/spec/volumes", absent, missing) {
            changes.must(
                op,
                Reason::SidecarDrift,
                "a volume of the sidecar is missing",
            );
        }
        Ok(())
    }

    fn sidecar(&self, changes: &mut Changes) -> Result<(), Denial> {
        let at = |index| format!("/spec/initContainers/{index}");
        let Some((index, container)) = self.present else {
            let absent = list(self.pod.spec, "initContainers")?.absent;
            for op in prepend(
                "/spec/initContainers",
                absent,
                vec![self.sidecar.clone().into()],
            ) {
                changes.must(op, Reason::SidecarMissing, "the pod has no sidecar");
            }
            return Ok(());
        };
        let wanted = Tree::of(&self.sidecar)?;
        let drift = drift::container(container, wanted.root(), self.api_server)?;
        let wanted = wanted.root().get("resources");
        let actual = container.value.get("resources");
        let replace = PatchOp::Replace {
            path: at(index),
            value: self.sidecar.clone().into(),
        };
        if let Some(field) = drift {
            let message = format!("the sidecar's {field} is not as injection makes it");
            changes.must(replace, Reason::SidecarDrift, message);
        } else if resources::lowered(actual, wanted)?.is_some() {
            changes.may(replace);
        }
        if index != 0 {
            let op = PatchOp::Move {
                from: at(index),
                path: at(0),
            };
            let message = "the sidecar is not the first init container";
            changes.must(op, Reason::SidecarDrift, message);
        }
        Ok(())
    }

    /// What was injected, for people, which proves nothing; and our voucher.
    fn annotations(&self, changes: &mut Changes) -> Result<(), Denial> {
        let digest = Sha256::digest(format!("{:?}", self.settings.to_knobs()));
        let digest: String = digest
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let value = format!("{}-{digest}", env!("CARGO_PKG_VERSION"));
        let mut wanted = vec![(INJECTED_ANNOTATION, value)];
        wanted.extend(
            self.voucher
                .clone()
                .map(|voucher| (VOUCHER_ANNOTATION, voucher)),
        );
        let Some(present) = self.pod.annotations()? else {
            let all: Map<String, Value> = wanted
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.into()))
                .collect();
            changes.may(add("/metadata/annotations", Value::Object(all)));
            return Ok(());
        };
        for (key, value) in wanted {
            if text(present, key)? != Some(&value) {
                let path = format!("/metadata/annotations/{}", escape(key));
                changes.may(add(path, value));
            }
        }
        Ok(())
    }
}
