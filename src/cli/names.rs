//! What a name means: the layers that `serve` puts over the directory, from the outermost to the
//! innermost in the order of the options here.

use crate::store::{Dir, MapFile, Mapped, Store};
use std::path::PathBuf;

/// What a name means.
#[derive(clap::Args)]
#[command(next_help_heading = "Names")]
pub(super) struct Names {
    /// Rewrite or refuse names by the rules of this file, in the syntax of tftpd-hpa; SIGHUP reads
    /// it again [default: no rules]
    #[arg(long, value_name = "FILE")]
    map_file: Option<PathBuf>,
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
        let mut store: Box<dyn Store> = Box::new(dir);
        let map = match &self.map_file {
            Some(path) => Some(MapFile::open(path).map_err(|error| error.to_string())?),
            None => None,
        };
        if let Some(map) = &map {
            store = Box::new(Mapped::new(map.clone(), store));
        }
        Ok(Layers { store, map })
    }
}
