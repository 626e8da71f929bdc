use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;

const SIZES: Sizes = Sizes {
    queue_count: 4,
    completion_count: 8,
    buffer_count: 64,
    buffer_size: 1024,
    slot_count: 4,
    slot_size: 16 * 1024,
};

/// A ring of every mode that this kernel lets us have, one after the other.
fn rings(sizes: Sizes) -> impl Iterator<Item = Ring> {
    Mode::ALL.into_iter().filter_map(move |mode| {
        let refused = |refusal| eprintln!("{} is skipped: {refusal}", mode.name());
        Ring::in_mode(mode, sizes).map_err(refused).ok()
    })
}

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, theirs)
}

/// The next completion, waiting for it.
fn next(ring: &mut Ring) -> Completion {
    for _ in 0..100 {
        if let Some(completion) = ring.reap() {
            return completion;
        }
        ring.wait(Duration::from_millis(100)).unwrap();
    }
    panic!("nothing completes");
}

#[test]
fn a_receive_without_a_free_buffer_says_so_and_loses_nothing() {
    for mut ring in rings(Sizes { buffer_count: 2, ..SIZES }) {
        let (ours, mut theirs) = pair();
        ring.receive(&ours, 7);
        let mut lent = Vec::new();
        for text in ["one", "two"] {
            theirs.write_all(text.as_bytes()).unwrap();
            let Completion::Received { word: 7, what: Received::Bytes(picked), .. } = next(&mut ring) else {
                panic!("bytes come");
            };
            assert_eq!(ring.bytes(&picked), text.as_bytes());
            lent.push(picked);
        }
        assert_eq!(ring.buffers_free(), 0);
        theirs.write_all(b"three").unwrap();
        let completion = next(&mut ring);
        assert!(
            matches!(completion, Completion::Received { what: Received::NoBuffer, more: false, .. }),
            "{completion:?}"
        );
        for picked in lent {
            ring.give_back(picked);
        }
        ring.receive(&ours, 7);
        let Completion::Received { what: Received::Bytes(picked), .. } = next(&mut ring) else {
            panic!("bytes come");
        };
        assert_eq!(ring.bytes(&picked), b"three");
    }
}

#[test]
fn completions_that_find_no_place_and_operations_that_find_no_queue_are_not_lost() {
    for mut ring in rings(SIZES) {
        let pairs: Vec<_> = (0..64).map(|_| pair()).collect();
        for (word, (ours, _)) in pairs.iter().enumerate() {
            ring.receive(ours, word as u64);
        }
        for round in 0..3 {
            for (_, theirs) in &pairs {
                let mut theirs = theirs;
                theirs.write_all(&[round]).unwrap();
            }
            let mut seen = [false; 64];
            while seen.contains(&false) {
                let Completion::Received { word, what, more } = next(&mut ring) else {
                    panic!("receives alone")
                };
                if let Received::Bytes(picked) = what {
                    assert_eq!(ring.bytes(&picked), [round]);
                    ring.give_back(picked);
                    seen[word as usize] = true;
                }
                if !more {
                    // A receive that finds no place for its completion may end with it.
                    ring.receive(&pairs[word as usize].0, word);
                }
            }
        }
    }
}

#[test]
fn what_a_socket_does_not_take_rests_in_its_slot_until_there_is_room() {
    for mut ring in rings(SIZES) {
        let (ours, mut theirs) = pair();
        let mut sent = 0;
        let slot = loop {
            assert!(ring.send(&ours, &[b'x'; 16 * 1024], 9).is_some());
            let Completion::Sent { word: 9, result, rest } = next(&mut ring) else { panic!("sends alone") };
            sent += result.unwrap_or(0);
            if let Some(slot) = rest {
                break slot;
            }
        };
        ring.await_writable(&ours, 9);
        ring.wait(Duration::ZERO).unwrap();
        assert!(ring.reap().is_none(), "there is no room");
        let mut buffer = vec![0; sent];
        theirs.read_exact(&mut buffer).unwrap();
        assert!(matches!(next(&mut ring), Completion::Writable { word: 9 }));
        ring.send_rest(&ours, slot);
        let Completion::Sent { result, rest: None, .. } = next(&mut ring) else { panic!("all is taken") };
        sent = sent % (16 * 1024) + result.unwrap();
        assert_eq!(sent % (16 * 1024), 0);
    }
}

#[test]
fn a_send_finds_no_slot_where_all_are_taken_or_it_is_too_large() {
    for mut ring in rings(SIZES) {
        let (ours, _theirs) = pair();
        assert!(ring.send(&ours, &[0; 16 * 1024 + 1], 0).is_none());
        let slots: Vec<_> = (0..4).map(|_| ring.send(&ours, b"x", 0).unwrap()).collect();
        assert!(ring.send(&ours, b"x", 0).is_none());
        // Nobody wants to hear of these; they are free once they have completed.
        for slot in slots {
            ring.drop_slot(slot);
        }
        ring.wait(Duration::ZERO).unwrap();
        assert!(ring.reap().is_none());
        assert!(ring.send(&ours, b"x", 0).is_some());
    }
}

#[test]
fn a_peer_that_is_gone_fails_the_send_and_frees_the_slot() {
    for mut ring in rings(Sizes { slot_count: 1, ..SIZES }) {
        let (ours, theirs) = pair();
        drop(theirs);
        for _ in 0..2 {
            ring.send(&ours, b"anybody?", 1).unwrap();
            let completion = next(&mut ring);
            assert!(
                matches!(completion, Completion::Sent { result: Err(Errno::EPIPE), rest: None, .. }),
                "{completion:?}"
            );
        }
    }
}

#[test]
fn a_retired_socket_is_closed_after_what_was_queued_for_it() {
    for mut ring in rings(SIZES) {
        let (ours, mut theirs) = pair();
        ring.send(&ours, b"last words", 1).unwrap();
        ring.retire(ours.into());
        ring.submit().unwrap();
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        assert_eq!(text, "last words");
    }
}

#[test]
fn a_cancelled_receive_ends_and_lets_its_socket_close() {
    let _alone = crate::sys::alone();
    for mut ring in rings(SIZES) {
        let (ours, mut theirs) = pair();
        ring.receive(&ours, 5);
        ring.submit().unwrap();
        drop(ours);
        ring.cancel_receive(5);
        let completion = next(&mut ring);
        assert!(
            matches!(completion, Completion::Received { word: 5, what: Received::Cancelled, more: false }),
            "{completion:?}"
        );
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_dropped_ring_ends_what_is_in_flight_and_keeps_no_socket() {
    let _alone = crate::sys::alone();
    for mut ring in rings(SIZES) {
        let pairs: Vec<_> = (0..16).map(|_| pair()).collect();
        let mut theirs = Vec::new();
        for (word, (ours, other)) in pairs.into_iter().enumerate() {
            ring.receive(&ours, word as u64);
            ring.watch(&ours, word as u64);
            ring.send(&ours, b"x", word as u64);
            ring.retire(ours.into());
            theirs.push(other);
        }
        assert!(ring.end());
        drop(ring);
        for mut other in theirs {
            let mut rest = Vec::new();
            other.read_to_end(&mut rest).unwrap();
            assert!(rest.len() <= 1);
        }
    }
}

#[test]
fn a_watch_says_each_time_that_something_has_come() {
    for mut ring in rings(SIZES) {
        let (mut ours, mut theirs) = pair();
        ring.watch(&ours, 3);
        for _ in 0..3 {
            theirs.write_all(b"x").unwrap();
            assert!(matches!(next(&mut ring), Completion::Watched { word: 3, more: true }));
            assert_eq!(ours.read(&mut [0; 8]).unwrap(), 1);
            ring.wait(Duration::ZERO).unwrap();
            assert!(ring.reap().is_none());
        }
        ring.cancel_watch(3);
        assert!(matches!(next(&mut ring), Completion::Watched { word: 3, more: false }));
    }
}

#[test]
#[should_panic(expected = "the buffer is not lent")]
fn the_bytes_of_a_buffer_that_is_the_kernels_are_refused() {
    let Some(ring) = rings(SIZES).next() else { panic!("the buffer is not lent: skipped") };
    let _ = ring.bytes(&Picked { buffer: 0, size: 1 });
}

#[test]
fn the_best_mode_that_the_kernel_has_is_taken() {
    let best = Mode::ALL.into_iter().find(|mode| Ring::in_mode(*mode, SIZES).is_ok());
    assert_eq!(Ring::new(SIZES).ok().map(|ring| ring.mode()), best);
}
