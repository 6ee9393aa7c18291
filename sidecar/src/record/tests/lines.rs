//! Whatever a call is made of: one line, within its limit, that holds.

use proptest::prelude::*;

use super::*;

fn closing_line(opening: Opening, message: &str, identity: Identity) -> String {
    let later = queue::Later {
        audit_id: AuditId::from_number(1),
        facts: Arc::new(Facts::new(opening, false)),
        minted: Some(call::Minted {
            credential_id: format!("JTI={message}"),
            mint_audit_id: AuditId::from_number(2),
            took: Some(Duration::MAX),
        }),
        ending: queue::Ending::Closed(Box::new(Closing {
            code: Some(u16::MAX),
            outcome: "client-disconnected",
            reason: Some(message.to_owned()),
            message: Some(message.to_owned()),
            request_bytes: Some(u64::MAX),
            response_bytes: Some(u64::MAX),
            upstream: Some(Duration::MAX),
        })),
        at: SystemTime::now(),
    };
    let identity = identity.bounded();
    let mut line = Vec::new();
    let chain = Chain {
        sequence: u64::MAX - 1,
        hash: Digest::of(b""),
    };
    chain.seal(&mut later.event(&identity), &mut line).unwrap();
    String::from_utf8(line).unwrap()
}

fn all(text: &str) -> (Opening, Identity) {
    let part = || Some(Text::from(text.to_owned()));
    let opening = Opening {
        verb: text.to_owned(),
        uri: text.to_owned(),
        object: Some(ObjectRef {
            api_group: part(),
            api_version: part(),
            name: part(),
            namespace: part(),
            resource: part(),
            subresource: part(),
        }),
        container: Some(text.to_owned()),
        user_agent: Some(text.to_owned()),
        policy: Some((text.to_owned(), text.to_owned())),
        source_ip: Some([0xffff; 8].into()),
        ..opening("")
    };
    let identity = Identity {
        username: text.to_owned(),
        pod: text.to_owned(),
        pod_uid: text.to_owned(),
        namespace: text.to_owned(),
        node: Some(text.to_owned()),
        is_pod: true,
    };
    (opening, identity)
}

#[test]
fn the_longest_line_has_room() {
    for unit in ["a", "\u{1}", "\"", "é", "\u{2028}", "\u{1f600}"] {
        let text = unit.repeat(20_000);
        let (opening, identity) = all(&text);
        let line = closing_line(opening, &text, identity);
        assert!(
            line.len() <= tollgate_shared::record::MAX_LINE,
            "{unit:?}: {}",
            line.len()
        );
        let mut event = parse(line.trim_end()).unwrap();
        check(line.trim_end(), &mut event, &mut Vec::new()).unwrap();
        let cut = event.annotations.truncated.unwrap().to_string();
        assert_eq!(
            // Whether the agent's name needs a second cut depends on its characters.
            cut.trim_end_matches(",userAgent"),
            "policy,rule,container,verb,requestURI,apiGroup,apiVersion,name,namespace,resource,subresource"
        );
    }
}

#[test]
fn a_long_user_agent_is_cut_as_the_api_server_cuts_it() {
    let agent = "é".repeat(600);
    let opening = Opening {
        user_agent: Some(agent),
        ..opening("/")
    };
    let line = closing_line(opening, "", identity());
    let event = parse(line.trim_end()).unwrap();
    let agent = event.user_agent.unwrap().to_string();
    assert_eq!(agent, format!("{}...TRUNCATED", "é".repeat(512)));
}

#[test]
fn the_words_of_a_command_are_not_written() {
    for keep in [true, false] {
        let facts = Facts::new(opening("/exec?command=hunter2"), keep);
        let who = identity();
        let event = facts.opening(&who, SystemTime::now());
        assert_eq!(event.request_uri.contains("hunter2"), keep);
    }
}

proptest! {
    #[test]
    fn any_call_gives_one_line_that_a_successor_understands(text in any::<String>(), message in any::<String>()) {
        let (opening, identity) = all(&text);
        let facts = Facts::new(opening.clone(), false);
        let line = closing_line(opening, &message, identity);
        prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        let mut event = parse(line.trim_end()).unwrap();
        prop_assert!(check(line.trim_end(), &mut event, &mut Vec::new()).is_ok());
        prop_assert_eq!(Facts::of_event(&event), facts);
    }
}
