//! The configuration's text: it ends in a configuration that can be described and read again, or in a report
//! whose places lie inside the text.

use std::path::PathBuf;

use evener::config::{
    Config, Description, Mistake, Report, SECRET, Source, differences, parse_with_warnings,
};
use serde_json::Value;

pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    match parse(&text) {
        Err(report) => {
            assert!(!report.is_empty(), "a refusal says why");
            check_places(&report, &text);
        }
        Ok((config, warnings)) => {
            assert!(warnings.is_empty(), "what is valid has no mistakes");
            check_places(&warnings, &text);
            check_described(&config);
        }
    }
}

fn parse(text: &str) -> Result<(Config, Report), Report> {
    let source =
        Source { name: "fuzz.toml".into(), text: text.into(), folder: PathBuf::from("/nonexistent") };
    parse_with_warnings(&source, &|name| name.starts_with('E').then(|| "0123456789abcdef".to_owned()))
}

fn check_places(report: &Report, text: &str) {
    let lines: Vec<&str> = text.split('\n').collect();
    for Mistake { line, column, message, help } in report.mistakes().chain(report.warnings()) {
        assert!(!message.is_empty() && !help.is_empty());
        let there = lines.get(line.wrapping_sub(1)).unwrap_or_else(|| panic!("line {line}: {message}"));
        let room = there.chars().count() + 1;
        assert!((1..=room).contains(&column), "column {column} of line {line}: {message}");
    }
    let shown = report.to_string();
    assert!(!shown.chars().any(|character| character.is_control() && character != '\n'), "{shown:?}");
}

/// Spelled out, key by key, it says the same.
fn check_described(config: &Config) {
    let Some(text) = spelled_out(config) else { return };
    let (again, _) = parse(&text).unwrap_or_else(|report| panic!("{report}\n{text}"));
    assert_eq!(Description::of_process(config), Description::of_process(&again), "{text}");
    assert_eq!(config.listeners, again.listeners, "{text}");
    assert_eq!(config.routes, again.routes, "{text}");
    assert_eq!(config.pools, again.pools, "{text}");
}

/// `None` where something is secret, since that is not told.
fn spelled_out(config: &Config) -> Option<String> {
    if !config.admin.tokens.is_empty() {
        return None;
    }
    let mut text = lines(&Description::of_process(config))?;
    // Their order is that of the file, and a split tells pools by their places.
    for listener in &config.listeners {
        text +=
            &format!("[listeners.\"{}\"]\n{}", listener.name, lines(&Description::of_listener(listener))?);
    }
    for pool in &config.pools {
        text += &format!("[pools.\"{}\"]\n{}upstreams = [\n", pool.name, lines(&Description::of_pool(pool))?);
        for upstream in &pool.upstreams {
            let address = toml::Value::String(upstream.address.to_string());
            let told = told(&Description::of_upstream(upstream));
            let told = told.iter().filter(|(key, _)| key != "state");
            let told: String = told.map(|(key, value)| format!(", {key} = {}", in_toml(value))).collect();
            text += &format!("{{ address = {address}{told} }},\n");
        }
        text += "]\n";
    }
    for route in &config.routes {
        text += &format!("[routes.\"{}\"]\n{}", route.name, lines(&Description::of_route(route, config))?);
    }
    Some(text)
}

fn lines(description: &Description) -> Option<String> {
    let told = told(description);
    if told.iter().any(|(_, value)| value == SECRET) {
        return None;
    }
    // Every host and every method are spelled by leaving them out, and so is a listener without TLS; with TLS it
    // needs files, which are not here.
    let told = told.iter().filter(|(key, value)| *value != Value::Array(Vec::new()) || key.ends_with("on"));
    let told = told.filter(|(key, _)| key != "tls.enabled");
    Some(told.map(|(key, value)| format!("{key} = {}\n", in_toml(value))).collect())
}

fn told(description: &Description) -> Vec<(String, Value)> {
    let all = differences(&Description::default(), description);
    all.into_iter().map(|setting| (setting.key, setting.to)).collect()
}

fn in_toml(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| format!("{key} = {}", in_toml(value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
        Value::Array(elements) => {
            format!("[{}]", elements.iter().map(in_toml).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        plain => plain.to_string(),
    }
}
