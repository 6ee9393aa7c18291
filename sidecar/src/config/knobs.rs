//! The table of settings, for `--help` and for the flags.

/// A knob, for `--help`: its name, the form of its value, what it does.
pub struct Knob {
    /// As in `--name`.
    pub name: &'static str,
    /// What a value looks like.
    pub value: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
}

const fn knob(name: &'static str, value: &'static str, help: &'static str) -> Knob {
    Knob { name, value, help }
}

/// Every knob of `tollgate-sidecar run`.
pub const KNOBS: &[Knob] = &[
    knob(
        "port",
        "PORT",
        "Port of the API proxy on loopback [default: 6443; standalone: a free one]",
    ),
    knob(
        "admin-port",
        "PORT",
        "Port of /livez, /readyz and /metrics [default: 6480; standalone: a free one on loopback]",
    ),
    knob(
        "token-ttl",
        "DURATION",
        "Life of a minted token, 600s to 3600s [default: 600s]",
    ),
    knob(
        "mint",
        "MODE",
        "When tokens are minted: on-demand or ahead [default: on-demand]",
    ),
    knob(
        "binding",
        "KIND",
        "What tokens are bound to: pod or node [default: pod]",
    ),
    knob(
        "service-account",
        "NAME",
        "Mint for this service account of the namespace [default: the pod's own]; standalone: NAMESPACE/NAME",
    ),
    knob(
        "audiences",
        "LIST",
        "Audiences of the tokens, between commas [default: the API server's own]",
    ),
    knob(
        "local-auth",
        "MODE",
        "Whether agents must show their local token: token or none [default: token]",
    ),
    knob(
        "containers",
        "LIST",
        "Names of the agent containers, between commas",
    ),
    knob(
        "log-level",
        "LEVEL",
        "error, warn, info or debug; goes to stderr [default: info; standalone: warn]",
    ),
    knob(
        "log-format",
        "FORMAT",
        "json or text [default: json; standalone: text]",
    ),
    knob("namespace", "NAME", "Namespace of this pod"),
    knob("pod-name", "NAME", "Name of this pod"),
    knob("pod-uid", "UID", "UID of this pod"),
    knob("pod-service-account", "NAME", "Service account of this pod"),
    knob("node-name", "NAME", "Node of this pod"),
    knob(
        "api-server",
        "URL",
        "The API server [default: from KUBERNETES_SERVICE_HOST and _PORT; standalone: the kubeconfig's]",
    ),
    knob(
        "bootstrap-dir",
        "DIR",
        "Folder with the bootstrap token and the cluster's CA",
    ),
    knob(
        "agent-dir",
        "DIR",
        "Folder for the agents' files, one folder a container [standalone: the agent's kubeconfig; default: a temporary one]",
    ),
    knob(
        "state-dir",
        "DIR",
        "Folder for what survives a restart [standalone: default: a temporary one, so that nothing does]",
    ),
    knob(
        "record-file",
        "FILE",
        "Write records to this file, with fsync and rotation, instead of stdout (standalone: stderr)",
    ),
    knob(
        "record-file-size",
        "BYTES",
        "Rotate the record file at this size [default: 104857600]",
    ),
    knob(
        "record-file-count",
        "COUNT",
        "Keep this many rotated record files [default: 10]",
    ),
    knob(
        "record-deadline",
        "DURATION",
        "Refuse a call whose record takes longer to write [default: 2s]",
    ),
    knob(
        "record-exec-commands",
        "BOOL",
        "Keep the commands of exec in records: true or false [default: false]",
    ),
    knob(
        "max-stream-age",
        "DURATION",
        "Cut watches, logs, exec and port-forwards at this age [default: 1h]",
    ),
    knob(
        "body-grace",
        "DURATION",
        "Refuse a call that waits longer for its body; each KiB buys a second more [default: 10s]",
    ),
    knob(
        "max-connections",
        "COUNT",
        "Connections of agents at a time [default: 1024]",
    ),
    knob(
        "max-calls-per-second",
        "COUNT",
        "Calls a second, and at once; more get 429 [default: any number]",
    ),
    knob(
        "mint-timeout",
        "DURATION",
        "Refuse a call whose token takes longer to mint [default: 10s]",
    ),
    knob(
        "drain-deadline",
        "DURATION",
        "Cut what still runs this long after SIGTERM [default: 2s]",
    ),
    knob(
        "kubeconfig",
        "FILE",
        "Run standalone: mint with the credential of this kubeconfig",
    ),
    knob(
        "context",
        "NAME",
        "Standalone: use this context of the kubeconfig [default: its current-context]",
    ),
    knob(
        "bound-to",
        "KIND/NAME",
        "Standalone: bind tokens to node/NAME or secret/NAME [default: to nothing]",
    ),
    knob(
        "config",
        "FILE",
        "Standalone: more settings by these names, as YAML or JSON; flags and variables win",
    ),
];
