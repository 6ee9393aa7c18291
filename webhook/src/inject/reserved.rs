//! The names that only we may use, and which container of our name is ours.

use tollgate_shared::contract::{CONTAINER, RESERVED_VOLUMES};

use super::drift;
use super::pod::{Container, Pod};
use crate::reason::{Denial, Reason};

/// Refuses our names in a pod that we do not inject: its `tollgate` container would write records that nobody made.
pub(crate) fn refuse(pod: &Pod<'_>) -> Result<(), Denial> {
    if pod.all().chain(&pod.ephemeral).any(has_our_name) {
        return Err(container_denial());
    }
    let mut names = pod.volumes.iter().map(|volume| volume.name);
    match names.find(|name| RESERVED_VOLUMES.contains(name)) {
        Some(name) => Err(volume_denial(name)),
        None => Ok(()),
    }
}

/// Our sidecar among the init containers, if it is there. A container of its name that is not ours is denied.
pub(crate) fn sidecar<'a>(pod: &'a Pod<'a>) -> Result<Option<(usize, &'a Container<'a>)>, Denial> {
    let mut elsewhere = pod.containers.iter().chain(&pod.ephemeral);
    if elsewhere.any(has_our_name) {
        return Err(container_denial());
    }
    let mut init = pod.init.iter().enumerate();
    match init.find(|(_, container)| has_our_name(container)) {
        None => Ok(None),
        Some((index, container)) if drift::is_ours(container)? => Ok(Some((index, container))),
        Some(_) => Err(container_denial()),
    }
}

fn has_our_name(container: &Container<'_>) -> bool {
    container.name == CONTAINER
}

fn container_denial() -> Denial {
    let message = format!("the name {CONTAINER} is reserved for the sidecar; rename the container");
    Denial::new(Reason::ReservedName, message)
}

/// The denial for a volume of a reserved name.
pub(crate) fn volume_denial(name: &str) -> Denial {
    let message = format!("the volume name {name} is reserved for the sidecar; rename the volume");
    Denial::new(Reason::ReservedName, message)
}
