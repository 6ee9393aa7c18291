//! Where vouchers go and where they come from: an annotation of the pod. Whoever else writes it is not believed, so it needs no
//! protection.

use tollgate_shared::contract::VOUCHER_ANNOTATION;

use super::Context;
use super::config::InjectConfig;
use super::pod::Pod;
use crate::json::Json;
use crate::reason::Denial;

/// The voucher that an injected pod should have and has not.
pub(super) fn due(pod: &Pod<'_>, context: &Context<'_>) -> Result<Option<String>, Denial> {
    let Some(vouching) = context.vouching else {
        return Ok(None);
    };
    let (shape, namespace) = (context.config.shape(), context.namespace);
    Ok(match pod.annotation(VOUCHER_ANNOTATION)? {
        Some(voucher) if vouching.is_fresh(voucher, namespace, &shape) => None,
        _ => vouching.issue(namespace, shape),
    })
}

/// Our configuration, but with sidecars made as the pod's voucher says, if it has one that is believed.
pub(crate) fn believed(pod: Json<'_>, context: &Context<'_>) -> Option<InjectConfig> {
    let vouching = context.vouching?;
    let voucher = Pod::read(pod).ok()?.annotation(VOUCHER_ANNOTATION).ok()??;
    let shape = vouching.believe(voucher, context.namespace)?;
    Some(context.config.with_shape(shape))
}
