//! What the Grafana dashboard that we ship asks, read out of its JSON.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// The dashboard.
pub(super) fn shipped() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/grafana/evener.json");
    serde_json::from_str(&fs::read_to_string(file).expect("a dashboard")).expect("JSON")
}

/// One question of the dashboard's.
#[derive(Debug)]
pub(super) struct Query {
    /// Panel or annotation.
    pub(super) of: String,
    pub(super) expression: String,
    /// As of one moment, not over the time that is shown.
    pub(super) is_instant: bool,
}

/// Of every panel and annotation, with all instances and pools chosen, and a minute for what Grafana puts in.
pub(super) fn queries(dashboard: &Value) -> Vec<Query> {
    let of_panels = panels(dashboard).into_iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| Query {
            of: format!("{}, {}", text(&panel["title"]), text(&target["refId"])),
            expression: filled_in(text(&target["expr"])),
            is_instant: target["instant"] == true,
        })
    });
    let of_annotations = list(&dashboard["annotations"]["list"]).into_iter().filter_map(|annotation| {
        let expression = filled_in(annotation["expr"].as_str()?);
        Some(Query { of: text(&annotation["name"]).to_owned(), expression, is_instant: false })
    });
    of_panels.chain(of_annotations).collect()
}

/// Every panel, those of folded rows among them.
pub(super) fn panels(dashboard: &Value) -> Vec<Value> {
    let outer = list(&dashboard["panels"]);
    let inner = outer.iter().flat_map(|panel| list(&panel["panels"])).collect::<Vec<_>>();
    outer.into_iter().chain(inner).collect()
}

/// Selector and label of each variable that asks for the values of a label.
pub(super) fn variables(dashboard: &Value) -> Vec<(String, String)> {
    let queries = list(&dashboard["templating"]["list"]);
    let queries = queries.iter().filter(|variable| variable["type"] == "query");
    let parts = queries.map(|variable| {
        let query = filled_in(text(&variable["query"]["query"]));
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).expect("label_values(…, …)");
        (selector.to_owned(), label.to_owned())
    });
    parts.collect()
}

pub(super) fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn filled_in(expression: &str) -> String {
    let filled = [("$__rate_interval", "1m"), ("$__range", "5m"), ("$instance", ".*"), ("$pool", ".*")]
        .iter()
        .fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value));
    assert!(!filled.contains('$'), "an unknown variable in {expression}");
    filled
}
