//! Tracing's part: rings for spans, while they have a place to go.

use std::fs;
use std::path::PathBuf;

use super::{Heritage, HeritageFault, refused, ring_paths};
use crate::exposure::ring;
use crate::logger;
use crate::trace;
use crate::worker::{Rings, Traces};

impl Heritage {
    /// Makes the two rings for spans of every slot that is traced, where they are not
    /// there yet, if tracing is on. What earlier instances left of theirs is gone:
    /// spans are for whoever looks now.
    ///
    /// # Errors
    /// If there is no room for them, mostly.
    pub fn make_trace_rings(&self) -> Result<(), HeritageFault> {
        if self.settings.tracing.endpoint.is_none() {
            return Ok(());
        }
        let directory = self.trace_directory();
        if !directory.exists() {
            self.clear_traces();
        }
        fs::create_dir_all(&directory).map_err(refused("can't make the directory", &directory))?;
        let size = ring::region_size(self.settings.tracing.ring_size);
        for (slot, _) in self.places.iter().enumerate().filter(|(_, place)| place.traced) {
            for (which, path) in ring_paths(&directory, slot).iter().enumerate() {
                if !path.exists() {
                    self.make_ring(path, size, slot, which)?;
                }
            }
        }
        Ok(())
    }

    /// Removes all rings for spans, with what is in them.
    pub(super) fn clear_traces(&self) {
        let _ = fs::remove_dir_all(self.directories.runtime_dir.join("spans"));
    }

    /// How a slot's worker traces, if it does.
    pub(super) fn worker_traces(&self, slot: usize) -> Option<Traces> {
        let tracing = &self.settings.tracing;
        tracing.endpoint.as_ref().filter(|_| self.places[slot].traced)?;
        let options = trace::Options { rate: tracing.rate, header: tracing.header, slowest: tracing.slowest };
        let identities = [0, 1].map(|which| self.ring_identity(slot, which));
        Some(Traces {
            rings: Rings { paths: ring_paths(&self.trace_directory(), slot), identities },
            options,
        })
    }

    /// What the logger does with spans, if there are any.
    pub(super) fn logger_traces(&self) -> Option<logger::TraceOptions> {
        let tracing = &self.settings.tracing;
        Some(logger::TraceOptions {
            endpoint: tracing.endpoint.clone()?,
            interval: tracing.interval,
            directory: self.trace_directory(),
            instance: self.instance,
        })
    }

    fn trace_directory(&self) -> PathBuf {
        self.directories.runtime_dir.join("spans").join(format!("{:016x}", self.instance))
    }
}
