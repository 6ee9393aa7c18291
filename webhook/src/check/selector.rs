//! Label selectors of the API.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Whether `labels` are selected. An empty selector selects all; an operator that the API does not have selects nothing.
pub(crate) fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let mut equal = selector.match_labels.iter().flatten();
    let mut expressions = selector.match_expressions.iter().flatten();
    equal.all(|(key, value)| labels.get(key) == Some(value))
        && expressions.all(|expression| holds(expression, labels))
}

fn holds(expression: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&expression.key);
    let is_in =
        value.is_some_and(|value| expression.values.iter().flatten().any(|one| one == value));
    match expression.operator.as_str() {
        "In" => is_in,
        "NotIn" => !is_in,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn as_the_api_server_selects() {
        let expression = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]});
        for (selector, of_a, of_other) in [
            (json!({}), true, true),
            (json!({"matchLabels": {"a": "1"}}), true, false),
            (json!({"matchLabels": {"a": "2"}}), false, false),
            (json!({"matchLabels": {"a": "1", "b": "1"}}), false, false),
            (expression("In", json!(["1", "2"])), true, false),
            (expression("In", json!(["2"])), false, false),
            (expression("NotIn", json!(["1"])), false, true),
            (expression("Exists", Value::Null), true, false),
            (expression("DoesNotExist", Value::Null), false, true),
            (expression("Gt", json!(["0"])), false, false),
        ] {
            let read: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            let labels = |key: &str| BTreeMap::from([(key.to_owned(), "1".to_owned())]);
            assert_eq!(selects(&read, &labels("a")), of_a, "{selector}");
            assert_eq!(selects(&read, &labels("c")), of_other, "{selector}");
        }
    }
}
