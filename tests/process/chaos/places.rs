//! Where exposures go, and what befalls it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
#[cfg(feature = "kafka")]
use std::time::Duration;

use super::{Random, refused_in};
use crate::arrived::Arrived;
#[cfg(feature = "kafka")]
use crate::broker::{Listener, MockBroker};
use crate::support::Daemon;

pub(super) trait Place {
    fn name(&self) -> &'static str;

    /// What the log says of its troubles.
    fn expected(&self) -> &'static [&'static str];

    /// Something befalls it; says what.
    fn strike(&mut self, random: &mut Random) -> &'static str;

    /// The daemon has met with what befell it first.
    fn was_felt(&self, daemon: &Daemon) -> bool;

    /// It is over.
    fn recover(&mut self);

    /// What has arrived since the last call.
    fn collect(&mut self, arrived: &mut Arrived);

    /// The rest: nobody sends any more.
    fn finish(&mut self, arrived: &mut Arrived);
}

/// The file sink's, on a small file system in memory, where root can mount one.
pub(super) struct Disk {
    files: PathBuf,
    mounted: Option<PathBuf>,
}

impl Disk {
    pub fn mount(daemon: &Daemon) -> Disk {
        let path = daemon.state_dir();
        fs::create_dir_all(&path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=256m", "splitd-test"]).arg(&path).output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("without a full disk: mounting a small one takes root");
        }
        Disk { files: path.join("exposures"), mounted: mounted.then_some(path) }
    }

    fn filler(&self) -> Option<PathBuf> {
        Some(self.mounted.as_ref()?.join("filler"))
    }
}

impl Place for Disk {
    fn name(&self) -> &'static str {
        "files"
    }

    fn expected(&self) -> &'static [&'static str] {
        &["event=sink_refused", "event=sink_error", "event=torn_file_cut"]
    }

    fn strike(&mut self, _: &mut Random) -> &'static str {
        let Some(filler) = self.filler() else { return "no disk filled" };
        // All that is left.
        let mut file = fs::File::create(filler).unwrap();
        let block = vec![0; 1 << 20];
        while file.write_all(&block).is_ok() {}
        "disk filled"
    }

    fn was_felt(&self, daemon: &Daemon) -> bool {
        self.mounted.is_none() || refused_in(daemon) > 0
    }

    fn recover(&mut self) {
        if let Some(filler) = self.filler() {
            fs::remove_file(filler).unwrap();
        }
    }

    /// Takes complete files away, as whoever ships them does.
    fn collect(&mut self, arrived: &mut Arrived) {
        let files = fs::read_dir(&self.files).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in files.filter(|path| path.extension().is_some_and(|end| end == "pb")) {
            arrived.take(&fs::read(&path).unwrap());
            fs::remove_file(path).unwrap();
        }
    }

    fn finish(&mut self, arrived: &mut Arrived) {
        self.collect(arrived);
        let rest: Vec<_> = fs::read_dir(&self.files).into_iter().flatten().flatten().collect();
        assert!(rest.is_empty(), "the last logger completed all files: {rest:?}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(path) = &self.mounted {
            unmount(path);
        }
    }
}

/// Whoever still writes there keeps it until then.
fn unmount(path: &Path) {
    let _ = Command::new("umount").arg("-l").arg(path).output();
}

/// Kafka's.
#[cfg(feature = "kafka")]
pub(super) struct Topic {
    broker: MockBroker,
    listener: Option<Listener>,
    trouble: Trouble,
    struck: bool,
}

#[cfg(feature = "kafka")]
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Down,
    Hanging,
    Slow,
    /// It has what it was given, and nobody hears of that.
    Mute,
    /// It has lost what it knew of the producer.
    Forgetful,
    /// The same, and the first new producer is refused.
    Hostile,
}

#[cfg(feature = "kafka")]
impl Topic {
    pub fn start() -> Topic {
        let broker = MockBroker::start();
        let listener = Some(Listener::start(&broker.address));
        Topic { broker, listener, trouble: Trouble::Down, struck: false }
    }

    pub fn address(&self) -> &str {
        &self.broker.address
    }
}

#[cfg(feature = "kafka")]
impl Place for Topic {
    fn name(&self) -> &'static str {
        "Kafka"
    }

    fn expected(&self) -> &'static [&'static str] {
        &[
            "event=kafka_client",
            "event=kafka_producer_remade",
            "event=sink_stalled",
            // While its predecessor, or an orphan, still has it.
            "event=spool_not_opened",
            "event=spool_tail_cut",
        ]
    }

    fn strike(&mut self, random: &mut Random) -> &'static str {
        use Trouble::{Down, Forgetful, Hanging, Hostile, Mute, Slow};
        let next = [Down, Hanging, Slow, Mute, Forgetful, Hostile][random.below(6) as usize];
        // First one that takes a spool.
        self.trouble = if self.struck { next } else { Down };
        self.struck = true;
        match self.trouble {
            Down => self.broker.down(),
            Hanging => self.broker.stop(),
            Slow => self.broker.slow(Duration::from_millis(200)),
            // Longer than the trouble takes.
            Mute => self.broker.slow(Duration::from_secs(30)),
            Forgetful => self.broker.fail("produce", "unknown_producer", 1),
            Hostile => {
                self.broker.fail("init", "not_authorized", 1);
                self.broker.fail("produce", "out_of_order", 1);
            }
        }
        match self.trouble {
            Down => "broker down",
            Hanging => "broker hangs",
            Slow => "broker slow",
            Mute => "broker's answers lost",
            Forgetful => "broker lost its state",
            Hostile => "broker lost its state and refused",
        }
    }

    fn was_felt(&self, daemon: &Daemon) -> bool {
        // There is a segment beside the cursor, or has been one.
        let mut files = fs::read_dir(daemon.state_dir().join("spool")).into_iter().flatten().flatten();
        files.any(|entry| entry.path().extension().is_some_and(|end| end == "spool"))
            || daemon.log().contains(" event=sink_recovered ")
    }

    fn recover(&mut self) {
        match self.trouble {
            Trouble::Down => self.broker.up(),
            Trouble::Hanging => self.broker.go_on(),
            Trouble::Slow => self.broker.slow(Duration::ZERO),
            Trouble::Mute => {
                self.broker.down();
                self.broker.slow(Duration::ZERO);
                self.broker.up();
            }
            Trouble::Forgetful | Trouble::Hostile => self.broker.heal(),
        }
    }

    fn collect(&mut self, arrived: &mut Arrived) {
        let listener = self.listener.as_ref().expect("until the end");
        listener.heard().for_each(|message| arrived.take(&message.value));
    }

    fn finish(&mut self, arrived: &mut Arrived) {
        let listener = self.listener.take().expect("until now");
        listener.finish().iter().for_each(|message| arrived.take(&message.value));
    }
}
