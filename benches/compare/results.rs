//! Finished comparisons, read back from their JSON: what an older run measured, for a table of
//! before and after and for the picture.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Medians by figure.
pub(crate) type Figures = BTreeMap<String, f64>;

/// One row of an earlier run: its servers in their order.
pub(crate) struct OldRow {
    pub(crate) name: String,
    pub(crate) servers: Vec<(String, Figures)>,
}

/// An earlier run.
pub(crate) struct Results {
    /// The machine and the versions, in one line.
    pub(crate) head: String,
    pub(crate) rows: Vec<OldRow>,
}

impl Results {
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let named = |error| io::Error::other(format!("{}: {error}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
        Self::parse(&text).ok_or_else(|| named("is not the JSON of a comparison".to_owned()))
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let document: Value = serde_json::from_str(text).ok()?;
        let word = |value: &Value, name: &str| value[name].as_str().map(str::to_owned);
        let rows = document["rows"].as_array()?;
        let rows = rows.iter().map(|row| {
            let servers = row["servers"].as_array()?;
            let servers = servers.iter().map(|server| {
                Some((
                    word(server, "server")?,
                    medians(server["samples"].as_array()?),
                ))
            });
            Some(OldRow {
                name: word(row, "row")?,
                servers: servers.collect::<Option<_>>()?,
            })
        });
        Some(Self {
            head: word(&document, "machine")?,
            rows: rows.collect::<Option<_>>()?,
        })
    }

    /// What was measured then.
    pub(crate) fn figures(&self, row: &str, server: &str) -> Option<&Figures> {
        let row = self.rows.iter().find(|it| it.name == row)?;
        row.servers
            .iter()
            .find(|(name, _)| name == server)
            .map(|(_, figures)| figures)
    }
}

fn medians(samples: &[Value]) -> Figures {
    let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for sample in samples {
        if let Value::Object(members) = sample {
            for (name, value) in members {
                if let Some(number) = value.as_f64() {
                    values.entry(name).or_default().push(number);
                }
            }
        }
    }
    let median =
        |(name, mut values): (&str, Vec<f64>)| Some((name.to_owned(), median(&mut values)?));
    values.into_iter().filter_map(median).collect()
}

/// The value in the middle, or the mean of the two there.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}
