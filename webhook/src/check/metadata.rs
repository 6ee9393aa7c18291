//! Whether NetworkPolicies keep agents from the clouds' metadata addresses, where a node's or workload's own identity is to be had,
//! which may be a credential for this cluster. Only NetworkPolicy objects are seen, not what a network plugin has besides.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use tollgate_shared::contract::CONTAINER;

use super::finding::{Finding, named};
use super::pods::runs;
use super::selector::selects;
use super::snapshot::{Kind, Snapshot, name};

/// Where clouds answer, all of them on port 80.
const ADDRESSES: [&str; 7] = [
    // AWS, Azure, Google, Oracle, OpenStack.
    "169.254.169.254",
    // AWS over IPv6.
    "fd00:ec2::254",
    // Google over IPv6.
    "fd20:ce::254",
    // ECS, and EKS Pod Identity.
    "169.254.170.2",
    "169.254.170.23",
    // Alibaba.
    "100.100.100.200",
    // Azure's wire server.
    "168.63.129.16",
];
const PORT: i32 = 80;

/// Judges the namespace's policies for its injected pods; for a pod without labels where there is none yet.
pub(crate) fn check(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    if !snapshot.has_seen(Kind::NetworkPolicies) {
        return;
    }
    let policies: Vec<NetworkPolicy> = snapshot.typed(Kind::NetworkPolicies);
    let agents = snapshot.list(Kind::Pods).iter();
    let mut pods: Vec<(&str, BTreeMap<String, String>)> = agents
        .filter(|pod| runs(pod) && is_injected(pod))
        .map(|pod| (name(pod), labels(pod)))
        .collect();
    if pods.is_empty() {
        pods.push(("pods to come", BTreeMap::new()));
    }
    let mut open: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
    for (pod, labels) in &pods {
        let reached: Vec<&str> = ADDRESSES
            .into_iter()
            .filter(|address| is_reachable(address, labels, &policies))
            .collect();
        if !reached.is_empty() {
            open.entry(reached).or_default().push(pod);
        }
    }
    for (reached, pods) in open {
        let named = named(&pods);
        let text = format!(
            "no NetworkPolicy keeps {named} from {}; apply one like manifests/examples/network-policy.yaml, with a network plugin that enforces it",
            reached.join(", ")
        );
        let object = format!("namespace/{}", snapshot.name());
        findings.push(Finding::warn("metadata-reachable", object, text));
    }
}

fn is_injected(pod: &Value) -> bool {
    let init = pod
        .pointer("/spec/initContainers")
        .and_then(Value::as_array);
    let mut init = init.into_iter().flatten();
    init.any(|container| container.get("name").and_then(Value::as_str) == Some(CONTAINER))
}

fn labels(pod: &Value) -> BTreeMap<String, String> {
    let labels = pod.pointer("/metadata/labels").and_then(Value::as_object);
    let labels = labels.into_iter().flatten();
    labels
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// Everything is reachable for a pod that no egress policy selects, else what any of those that select it allows.
fn is_reachable(
    address: &str,
    labels: &BTreeMap<String, String>,
    policies: &[NetworkPolicy],
) -> bool {
    let Ok(address) = address.parse() else {
        return true;
    };
    let specs = policies.iter().filter_map(|policy| policy.spec.as_ref());
    let mut selected = specs
        .filter(|spec| {
            let types = spec.policy_types.as_deref().unwrap_or_default();
            let is_egress = match types {
                [] => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
                types => types.iter().any(|kind| kind == "Egress"),
            };
            let selector = spec.pod_selector.as_ref();
            is_egress && selector.is_none_or(|selector| selects(selector, labels))
        })
        .peekable();
    selected.peek().is_none()
        || selected.any(|spec| {
            spec.egress
                .iter()
                .flatten()
                .any(|rule| allows(rule, address))
        })
}

fn allows(rule: &NetworkPolicyEgressRule, address: IpAddr) -> bool {
    let peers = rule.to.as_deref().unwrap_or_default();
    let ports = rule.ports.as_deref().unwrap_or_default();
    let blocks = |block: &IPBlock| {
        let mut except = block.except.iter().flatten();
        contains(&block.cidr, address).unwrap_or(true)
            && !except.any(|cidr| contains(cidr, address).unwrap_or(false))
    };
    // Selectors select pods, and no pod has such an address.
    let reached = peers.is_empty()
        || peers
            .iter()
            .filter_map(|peer| peer.ip_block.as_ref())
            .any(blocks);
    reached && (ports.is_empty() || ports.iter().any(is_open))
}

/// A named port is somebody's own business: in doubt it is open.
fn is_open(port: &NetworkPolicyPort) -> bool {
    let is_tcp = port
        .protocol
        .as_deref()
        .is_none_or(|protocol| protocol == "TCP");
    is_tcp
        && match &port.port {
            None | Some(IntOrString::String(_)) => true,
            Some(IntOrString::Int(first)) => {
                (*first..=port.end_port.unwrap_or(*first)).contains(&PORT)
            }
        }
}

/// Whether an address is in a block; `None` if the block is none.
fn contains(cidr: &str, address: IpAddr) -> Option<bool> {
    let (network, length) = cidr.split_once('/')?;
    let (network, length): (IpAddr, u32) = (network.parse().ok()?, length.parse().ok()?);
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let ((network, size), (address, other)) = (bits(network), bits(address));
    let free = u32::checked_sub(size, length)?;
    Some(size == other && u128::checked_shr(network ^ address, free).unwrap_or(0) == 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(spec: Value) -> NetworkPolicy {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn the_example_closes_all_of_them() {
        let example = include_str!("../../../manifests/examples/network-policy.yaml");
        let example: NetworkPolicy = serde_saphyr::from_str(example).unwrap();
        for address in ADDRESSES {
            assert!(is_reachable(address, &BTreeMap::new(), &[]));
            assert!(!is_reachable(
                address,
                &BTreeMap::new(),
                std::slice::from_ref(&example)
            ));
        }
    }

    /// What the example closes is known here, and the other way round.
    #[test]
    fn the_example_and_the_addresses_are_alike() {
        let example = include_str!("../../../manifests/examples/network-policy.yaml");
        let example: NetworkPolicy = serde_saphyr::from_str(example).unwrap();
        let rules = example.spec.unwrap().egress.unwrap();
        let peers = rules.iter().flat_map(|rule| rule.to.iter().flatten());
        let blocks = peers.filter_map(|peer| peer.ip_block.as_ref());
        let closed: Vec<&String> = blocks
            .flat_map(|block| block.except.iter().flatten())
            .collect();
        let holds = |cidr: &str, address: &str| contains(cidr, address.parse().unwrap()).unwrap();
        for cidr in &closed {
            // Link-local addresses of IPv6 are closed as such: no cloud answers there.
            let is_known = ADDRESSES.iter().any(|address| holds(cidr, address));
            assert!(is_known || *cidr == "fe80::/10", "{cidr}");
        }
        for address in ADDRESSES {
            assert!(closed.iter().any(|cidr| holds(cidr, address)), "{address}");
        }
    }

    #[test]
    fn policies_add_up_as_the_api_says() {
        let v4 = "169.254.169.254";
        let any = json!({"cidr": "0.0.0.0/0"});
        let but = json!({"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]});
        let egress =
            |rules: Value| json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": rules});
        let to = |block: &Value| json!([{"to": [{"ipBlock": block}]}]);
        let ports = |ports: Value| json!([{"ports": ports}]);
        let other = json!({"matchLabels": {"app": "other"}});
        for (specs, wanted) in [
            (vec![], true),
            (vec![egress(json!([]))], false),
            (
                vec![json!({"podSelector": {}, "policyTypes": ["Egress"]})],
                false,
            ),
            (vec![json!({"podSelector": {}})], true),
            (
                vec![json!({"podSelector": {}, "policyTypes": ["Ingress"]})],
                true,
            ),
            (vec![json!({"podSelector": {}, "egress": to(&but)})], false),
            (
                vec![json!({"podSelector": other, "policyTypes": ["Egress"]})],
                true,
            ),
            (vec![egress(json!([{}]))], true),
            (vec![egress(to(&any))], true),
            (vec![egress(to(&but))], false),
            (vec![egress(to(&json!({"cidr": "::/0"})))], false),
            (vec![egress(to(&json!({"cidr": "10.0.0.0/8"})))], false),
            (
                vec![egress(to(&json!({"cidr": "169.254.169.254/32"})))],
                true,
            ),
            (vec![egress(to(&json!({"cidr": "nonsense"})))], true),
            // A rule of one policy opens what another leaves out.
            (vec![egress(to(&but)), egress(to(&any))], true),
            (
                vec![egress(json!([{"to": [{"namespaceSelector": {}}]}]))],
                false,
            ),
            (vec![egress(ports(json!([{"port": 443}])))], false),
            (
                vec![egress(ports(json!([{"port": 1, "endPort": 1024}])))],
                true,
            ),
            (
                vec![egress(ports(json!([{"port": 80, "protocol": "UDP"}])))],
                false,
            ),
            (vec![egress(ports(json!([{"port": "web"}])))], true),
            (vec![egress(ports(json!([{"protocol": "TCP"}])))], true),
        ] {
            let policies: Vec<_> = specs.iter().cloned().map(policy).collect();
            assert_eq!(
                is_reachable(v4, &BTreeMap::new(), &policies),
                wanted,
                "{specs:?}"
            );
        }
    }

    #[test]
    fn blocks_contain_what_they_say() {
        for (cidr, address, wanted) in [
            ("0.0.0.0/0", "1.2.3.4", Some(true)),
            ("1.2.3.0/24", "1.2.3.255", Some(true)),
            ("1.2.3.0/24", "1.2.4.0", Some(false)),
            ("1.2.3.4/32", "1.2.3.4", Some(true)),
            ("::/0", "1.2.3.4", Some(false)),
            ("::/0", "fd00:ec2::254", Some(true)),
            ("fd00:ec2::/32", "fd00:ec2::254", Some(true)),
            ("fd00:ec2::254/128", "fd00:ec2::255", Some(false)),
            ("1.2.3.4", "1.2.3.4", None),
            ("1.2.3.4/33", "1.2.3.4", None),
            ("x/8", "1.2.3.4", None),
        ] {
            assert_eq!(
                contains(cidr, address.parse().unwrap()),
                wanted,
                "{cidr} {address}"
            );
        }
    }
}
