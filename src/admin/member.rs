//! Upstreams as a request names them: an address, a table with more, or a list of both.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::problem::Problem;
use crate::config::{NewUpstream, read_address};

/// What POST takes.
pub(super) enum OneOrMany {
    One(NewUpstream),
    Many(Vec<NewUpstream>),
}

/// What PUT takes: a list, or a table that has it as `upstreams`.
pub(super) struct Whole(pub Vec<NewUpstream>);

/// One of a list.
struct Item(NewUpstream);

/// An upstream with more than its address.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    address: String,
    weight: Option<u64>,
    max_connections: Option<u64>,
    #[serde(default)]
    backup: bool,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WholeTable {
    upstreams: Vec<Item>,
}

/// Puts the address of each in place of the name that was given for it. Asks the resolver, which may take
/// its time, so that nobody who changes something meanwhile has to wait for it.
pub(super) async fn resolve(named: Vec<NewUpstream>) -> Result<Vec<NewUpstream>, Problem> {
    let resolving = tokio::task::spawn_blocking(move || {
        let resolved = named.into_iter().map(|one| {
            let address = read_address(&one.address).map_err(|why| Problem::wrong_member(&why))?.to_string();
            Ok(NewUpstream { address, ..one })
        });
        resolved.collect()
    });
    resolving.await.unwrap_or_else(|error| Err(Problem::internal(error.to_string())))
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = OneOrMany;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an address, a table with `address`, or a list of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(at(text)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneOrMany, A::Error> {
                Table::deserialize(MapAccessDeserializer::new(map)).map(|table| OneOrMany::One(table.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<OneOrMany, A::Error> {
                read_list(list).map(OneOrMany::Many)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Whole;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of upstreams, or a table with it as `upstreams`")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Whole, A::Error> {
                let table = WholeTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Whole(table.upstreams.into_iter().map(|Item(one)| one).collect()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Whole, A::Error> {
                read_list(list).map(Whole)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Item;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an address or a table with `address`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Item, E> {
                Ok(Item(at(text)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
                Table::deserialize(MapAccessDeserializer::new(map)).map(|table| Item(table.into()))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

fn read_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Vec<NewUpstream>, A::Error> {
    let mut all = Vec::new();
    while let Some(Item(one)) = list.next_element()? {
        all.push(one);
    }
    Ok(all)
}

/// With every default.
pub(super) fn at(address: &str) -> NewUpstream {
    NewUpstream { address: address.to_owned(), ..NewUpstream::default() }
}

impl From<Table> for NewUpstream {
    fn from(table: Table) -> Self {
        let Table { address, weight, max_connections, backup } = table;
        Self { address, weight, max_connections, backup }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(json: &str) -> Result<Vec<NewUpstream>, String> {
        serde_json::from_str(json).map(|Whole(all)| all).map_err(|error| error.to_string())
    }

    fn posted(json: &str) -> Result<Vec<NewUpstream>, String> {
        let said = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Ok(match said {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        })
    }

    #[test]
    fn an_upstream_is_a_text_or_a_table_alone_or_in_a_list() {
        let heavy = NewUpstream { weight: Some(3), backup: true, ..at("b:2") };
        let table = r#"{"address": "b:2", "weight": 3, "backup": true}"#;
        assert_eq!(posted(r#""a:1""#), Ok(vec![at("a:1")]));
        assert_eq!(posted(table), Ok(vec![heavy.clone()]));
        let list = format!("[\"a:1\", {table}]");
        assert_eq!(posted(&list), Ok(vec![at("a:1"), heavy.clone()]));
        assert_eq!(whole(&list), Ok(vec![at("a:1"), heavy.clone()]));
        assert_eq!(whole(&format!("{{\"upstreams\": {list}}}")), Ok(vec![at("a:1"), heavy]));
    }

    #[test]
    fn what_is_no_upstream_is_told_with_what_would_be_one() {
        for (json, told) in [
            ("5", "expected an address, a table with `address`, or a list of them"),
            ("[5]", "expected an address or a table with `address`"),
            ("[[]]", "expected an address or a table with `address`"),
            ("{}", "missing field `address`"),
            (
                r#"{"address": "a:1", "wieght": 1}"#,
                "unknown field `wieght`, expected one of `address`, `weight`",
            ),
            (r#"{"address": "a:1", "weight": -1}"#, "integer `-1`"),
            (r#"{"address": "a:1", "weight": "1"}"#, "string \"1\""),
            (r#"{"address": "a:1", "address": "b:2"}"#, "duplicate field `address`"),
        ] {
            let error = posted(json).err().unwrap_or_default();
            assert!(error.contains(told), "{json}: {error}");
        }
        for json in ["\"a:1\"", r#"{"upstream": []}"#, r#"{"address": "a:1"}"#, "null"] {
            assert!(whole(json).is_err(), "{json}");
        }
    }
}
