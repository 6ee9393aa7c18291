//! Takes the words of an `exec` command out of a URI: they often hold passwords. Any URI, because a path that is refused may
//! still be meant for `exec`, and no other request of Kubernetes has such a parameter. Pure.

use percent_encoding::percent_decode_str;

const REDACTED: &str = "REDACTED";

/// The same URI with every value of a `command` parameter replaced. A key counts as the API server would decode it.
pub(super) fn redacted(uri: String) -> String {
    let Some((path, query)) = uri.split_once('?') else {
        return uri;
    };
    if !query.contains("command") && !query.contains('%') {
        return uri;
    }
    let parameter = |parameter: &str| {
        let key = parameter.split_once('=').map_or(parameter, |(key, _)| key);
        let decoded = percent_decode_str(key).collect::<Vec<u8>>();
        if decoded == b"command" {
            format!("{key}={REDACTED}")
        } else {
            parameter.to_owned()
        }
    };
    let query: Vec<String> = query.split('&').map(parameter).collect();
    format!("{path}?{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_out_commands_and_nothing_else() {
        for (uri, shown) in [
            ("/exec", "/exec"),
            ("/pods?limit=500", "/pods?limit=500"),
            (
                "/exec?command=sh&command=-c&stdin=true",
                "/exec?command=REDACTED&command=REDACTED&stdin=true",
            ),
            (
                "/exec?stdin=true&%63ommand=pw%26&x=1",
                "/exec?stdin=true&%63ommand=REDACTED&x=1",
            ),
            ("/exec?command", "/exec?command=REDACTED"),
            ("/exec?command==a=b", "/exec?command=REDACTED"),
            ("/exec?Command=a&commands=b", "/exec?Command=a&commands=b"),
        ] {
            assert_eq!(redacted(uri.to_owned()), shown);
        }
    }
}
