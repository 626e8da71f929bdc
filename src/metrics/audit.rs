//! The law of exposures: whatever was attempted is somewhere, or its loss is
//! counted. A pure function over the families.
//!
//! ```text
//! attempted = committed + lost             lost = full + oversize + torn
//! committed = delivered + rejected + spooled + corrupt + in rings
//! taken     = replayed + rejected + evicted + corrupt + in spool        (the spool's, since it was made)
//! torn     <= writers that have attached   (each leaves at most one number behind)
//! ```
//! [`Audit::unaccounted`] is by how much that does not hold: 0 whenever nothing
//! moves. While exposures are under way its parts are read one after the other,
//! and it may show a few for a moment: compare two audits before believing it.
//!
//! A ring's own books ([`crate::exposure::ring::Account`](../../exposure/ring/struct.Account.html))
//! call torn whatever is left over. The last line is what keeps that honest: a
//! record that vanished between tail and head would show as torn, and no killed
//! worker would be there to explain it.

use super::{Family, Table};

/// What became of the exposures of this instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audit {
    /// Workers set out to record them.
    pub attempted: u64,
    /// The ring was full.
    pub lost_full: u64,
    /// Larger than a ring takes.
    pub lost_oversize: u64,
    /// Begun by a worker that was killed.
    pub lost_torn: u64,
    /// Workers that have attached to a ring.
    pub writers: u64,
    /// Wait in rings.
    pub in_rings: u64,
    /// Confirmed by the sink.
    pub delivered: u64,
    /// Refused by the sink for good.
    pub rejected: u64,
    /// Gone to the spool.
    pub spooled: u64,
    /// Damaged in a ring.
    pub corrupt: u64,
    /// The spool's own books.
    pub spool: SpoolAudit,
}

/// What became of the exposures that the spool ever took, earlier instances'
/// among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpoolAudit {
    /// It took them.
    pub taken: u64,
    /// Delivered from it.
    pub replayed: u64,
    /// Refused by the sink for good.
    pub rejected: u64,
    /// Gone at a bound.
    pub evicted: u64,
    /// Not readable again.
    pub corrupt: u64,
    /// Wait in it.
    pub waiting: u64,
}

impl SpoolAudit {
    fn unaccounted(&self) -> u64 {
        let known = [self.replayed, self.rejected, self.evicted, self.corrupt, self.waiting];
        self.taken.abs_diff(known.into_iter().fold(0, u64::saturating_add))
    }
}

impl Audit {
    /// Audits what `get` gives for a family's cell, summed over the instance.
    pub fn of(get: impl Fn(Family, usize) -> u64) -> Audit {
        // Cell 0 is this instance's rings, see `RING_ORIGINS`.
        Audit {
            attempted: get(Family::ExposuresAttempted, 0),
            lost_full: get(Family::ExposuresLost, 0),
            lost_oversize: get(Family::ExposuresLost, 1),
            lost_torn: get(Family::ExposuresLost, 2),
            writers: get(Family::RingWriters, 0),
            in_rings: get(Family::ExposuresInRings, 0),
            delivered: get(Family::ExposuresDelivered, 0),
            rejected: get(Family::ExposuresRejected, 0),
            spooled: get(Family::ExposuresSpooled, 0),
            corrupt: get(Family::ExposuresCorrupt, 0),
            spool: SpoolAudit {
                taken: get(Family::SpoolTaken, 0),
                replayed: get(Family::ExposuresReplayed, 0),
                rejected: get(Family::ExposuresRejected, 2),
                evicted: (0..super::SPOOL_BOUNDS.len())
                    .map(|bound| get(Family::SpoolEvicted, bound))
                    .fold(0, u64::saturating_add),
                corrupt: get(Family::SpoolCorrupt, 0),
                waiting: get(Family::ExposuresInSpool, 0),
            },
        }
    }

    /// Audits an instance.
    #[must_use]
    pub fn read(table: Table<'_>) -> Audit {
        Audit::of(|family, cell| {
            table.blocks().map(|block| block.get(family, cell)).fold(0, u64::wrapping_add)
        })
    }

    /// Attempts that no ring took.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost_full.saturating_add(self.lost_oversize).saturating_add(self.lost_torn)
    }

    /// Exposures that a ring took, and so promised.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.attempted.saturating_sub(self.lost())
    }

    /// Exposures of which nobody knows what became: missing, in more than one
    /// place, or torn without a worker that tore them.
    #[must_use]
    pub fn unaccounted(&self) -> u64 {
        let known = [self.delivered, self.rejected, self.spooled, self.corrupt, self.in_rings];
        let known = known.into_iter().fold(0, u64::saturating_add);
        let committed = i128::from(self.attempted) - i128::from(self.lost());
        let difference = committed.abs_diff(i128::from(known));
        let unexplained = self.lost_torn.saturating_sub(self.writers);
        let in_rings = u64::try_from(difference).unwrap_or(u64::MAX);
        in_rings.saturating_add(unexplained).saturating_add(self.spool.unaccounted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: Audit = Audit {
        attempted: 1000,
        lost_full: 20,
        lost_oversize: 3,
        lost_torn: 2,
        writers: 6,
        in_rings: 70,
        delivered: 600,
        rejected: 1,
        spooled: 299,
        corrupt: 5,
        spool: SpoolAudit { taken: 800, replayed: 500, rejected: 2, evicted: 100, corrupt: 8, waiting: 190 },
    };

    #[test]
    fn books_that_hold_leave_nothing_unaccounted() {
        assert_eq!((SOUND.lost(), SOUND.committed(), SOUND.unaccounted()), (25, 975, 0));
        assert_eq!(Audit::default().unaccounted(), 0);
    }

    #[test]
    fn one_exposure_too_few_or_too_many_anywhere_shows() {
        let parts: [fn(&mut Audit) -> &mut u64; 15] = [
            |audit| &mut audit.attempted,
            |audit| &mut audit.lost_full,
            |audit| &mut audit.lost_oversize,
            |audit| &mut audit.lost_torn,
            |audit| &mut audit.in_rings,
            |audit| &mut audit.delivered,
            |audit| &mut audit.rejected,
            |audit| &mut audit.spooled,
            |audit| &mut audit.corrupt,
            |audit| &mut audit.spool.taken,
            |audit| &mut audit.spool.replayed,
            |audit| &mut audit.spool.rejected,
            |audit| &mut audit.spool.evicted,
            |audit| &mut audit.spool.corrupt,
            |audit| &mut audit.spool.waiting,
        ];
        for part in parts {
            for wrong in [|value| value + 1, |value| value - 1] {
                let mut audit = SOUND;
                let value = part(&mut audit);
                *value = wrong(*value);
                assert_eq!(audit.unaccounted(), 1, "{audit:?}");
            }
        }
    }

    #[test]
    fn a_record_that_vanished_is_no_killed_workers() {
        // Read off its ring, it looks torn.
        let audit = Audit { writers: 1, ..SOUND };
        assert_eq!(audit.unaccounted(), 1);
    }

    #[test]
    fn no_figures_overflow() {
        let most = u64::MAX;
        let audit = Audit { attempted: 0, lost_full: most, lost_oversize: most, delivered: most, ..SOUND };
        assert_eq!(audit.unaccounted(), most);
    }

    #[test]
    fn the_audit_of_an_instance_sums_its_blocks() {
        let words: Vec<_> =
            (0..super::super::region_size(2) / 8).map(|_| std::sync::atomic::AtomicU64::new(0)).collect();
        let table = Table::format(&words, 2);
        table.block(1).set(Family::ExposuresAttempted, 5);
        table.block(1).set_at(Family::ExposuresDelivered, 0, 3);
        // Of earlier instances: none of ours.
        table.block(1).set_at(Family::ExposuresDelivered, 1, 9);
        assert_eq!(Audit::read(table).unaccounted(), 2);
    }
}
