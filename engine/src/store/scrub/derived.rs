//! What can be made again from the databases, or is of no account: files of vectors, heat, counters.

use std::ops::ControlFlow;
use std::path::PathBuf;

use super::{Fault, RECOMPUTED, Scrub};
use crate::cache::EmbeddingCache;
use crate::error::Result;
use crate::heat;
use crate::layout;
use crate::segment::graph_file;

impl Scrub<'_> {
    /// The files of vectors that are in use. A damaged one is not used from then on.
    pub(super) fn vector_files(&mut self) -> Result<ControlFlow<()>> {
        for file in self.store.segments.arena_files() {
            match file.verify(|bytes| self.read(bytes)) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(broken_off) => return Ok(broken_off),
                Err(error) => self.derived_fault(error.chain(), file.path().to_owned()),
            }
        }
        self.graph_files()
    }

    /// The files of graphs. A damaged one is not used by the next open.
    fn graph_files(&mut self) -> Result<ControlFlow<()>> {
        for collection in self.store.all_collections() {
            let path = layout::graph_file(&self.store.layout.vectors(), collection.spec.id.0);
            let unfinished = layout::graph_unfinished(&path);
            for path in [path, unfinished].into_iter().filter(|path| path.exists()) {
                match graph_file::verify(&path, |bytes| self.read(bytes)) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(broken_off) => return Ok(broken_off),
                    Err(error) => self.derived_fault(error.chain(), path),
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The generations of heat. Whoever reads them removes those that are damaged. Beside them the
    /// counters of the cache, which are written anew when the store is closed.
    pub(super) fn heat(&mut self) -> Result<ControlFlow<()>> {
        let counters = self.store.layout.cache_counters();
        if let Err(error) = EmbeddingCache::check_counters(&counters) {
            self.derived_fault(error.chain(), counters);
        }
        // Until it is warm, the store reads them itself.
        if !self.store.is_warm() {
            return Ok(ControlFlow::Continue(()));
        }
        let directory = self.store.layout.heat();
        for (path, error) in heat::check(&directory)? {
            self.derived_fault(error.chain(), path);
        }
        Ok(ControlFlow::Continue(()))
    }

    fn derived_fault(&mut self, what: String, path: PathBuf) {
        let path = self.shown(&path);
        self.fault(Fault {
            what,
            path,
            offset: None,
            collection: None,
            key: None,
            repaired: true,
            remedy: RECOMPUTED.to_owned(),
        });
    }
}
