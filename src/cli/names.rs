//! What a name means: the layers that `serve` puts over the directory, from the outermost to the
//! innermost in the order of the options here.

use crate::store::{Dir, MapFile, Mapped, PerClientRoot, Prefix, RootTemplate, Store, StripPrefix};
use std::path::PathBuf;

/// What a name means.
#[derive(clap::Args)]
#[command(next_help_heading = "Names")]
pub(super) struct Names {
    /// Take this path off the front of names, whole components only; repeatable [default: none]
    #[arg(long, value_name = "PREFIX", value_parser = str::parse::<Prefix>)]
    strip_prefix: Vec<Prefix>,

    /// Rewrite or refuse names by the rules of this file, in the syntax of tftpd-hpa; SIGHUP reads
    /// it again [default: no rules]
    #[arg(long, value_name = "FILE")]
    pub(super) map_file: Option<PathBuf>,

    /// Serve a client from a directory of its own, where DIR has it: `ip`, `mac`, or a path with
    /// {ip}, {ip-hex}, {mac}, {mac-dash}, {interface} or {local} [default: one root for all]
    #[arg(long, value_name = "TEMPLATE", value_parser = str::parse::<RootTemplate>)]
    per_client_root: Option<RootTemplate>,

    /// Find names in another case of their letters a-z, the exact name first; two others that
    /// differ in case only are refused [default: case counts]
    #[arg(long)]
    pub(super) ignore_case: bool,
}

/// The directory with the layers over it.
pub(super) struct Layers {
    pub(super) store: Box<dyn Store>,
    /// To be read once more when the process has become the user who serves.
    pub(super) map: Option<MapFile>,
}

impl Names {
    /// Puts the layers that were asked for over a directory.
    pub(super) fn over(&self, dir: Dir) -> Result<Layers, String> {
        let mut store: Box<dyn Store> = match &self.per_client_root {
            Some(template) => Box::new(PerClientRoot::new(dir, template.clone())),
            None => Box::new(dir),
        };
        let map = match &self.map_file {
            Some(path) => Some(MapFile::open(path).map_err(|error| error.to_string())?),
            None => None,
        };
        if let Some(map) = &map {
            store = Box::new(Mapped::new(map.clone(), store));
        }
        if !self.strip_prefix.is_empty() {
            let stripped = StripPrefix::new(store, self.strip_prefix.iter().cloned());
            store = Box::new(stripped.ignore_case(self.ignore_case));
        }
        Ok(Layers { store, map })
    }
}
