//! The fuzz targets on so many mutated seeds.

use std::time::{Duration, Instant};

use super::*;

/// A small generator that is the same everywhere (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound.max(1) as u64) as usize
    }
}

/// A few small changes: bytes swapped, dropped, doubled, or pieces of the
/// dictionary and of other seeds put in.
fn mutate(dice: &mut Dice, seeds: &[&[u8]], dictionary: &[&[u8]]) -> Vec<u8> {
    let mut data = seeds[dice.below(seeds.len())].to_vec();
    for _ in 0..dice.below(5) {
        let at = dice.below(data.len() + 1);
        let to = (at + dice.below(12)).min(data.len());
        match dice.below(8) {
            0 if at < data.len() => data[at] = dice.roll() as u8,
            1 if at < data.len() => data[at] ^= 1 << dice.below(8),
            2 => drop(data.drain(at..to)),
            3 => {
                let piece = data[at..to].to_vec();
                data.splice(at..at, piece);
            }
            4 => {
                let other = seeds[dice.below(seeds.len())];
                let from = dice.below(other.len());
                data.splice(at.., other[from..].iter().copied());
            }
            5 => data.splice(at..at, [dice.roll() as u8]).for_each(drop),
            _ => {
                let word = dictionary[dice.below(dictionary.len())];
                data.splice(at..at, word.iter().copied()).for_each(drop);
            }
        }
    }
    data
}

/// About a second's. As many on any machine, so that a fast one finds nothing that a
/// slow one passed over.
const INPUT_COUNT: u64 = 60_000;

/// `SPLITD_FUZZ_SECONDS` and `SPLITD_FUZZ_SEED` ask for more, or for the same again.
fn run(target: fn(&[u8]), seeds: &[&[u8]], dictionary: &[&[u8]]) {
    let variable = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let time = variable("SPLITD_FUZZ_SECONDS").map(Duration::from_secs);
    let seed = variable("SPLITD_FUZZ_SEED").unwrap_or(0x5EED);
    println!("seed {seed}");
    seeds.iter().for_each(|seed| target(seed));
    let mut dice = Dice(seed);
    let begin = Instant::now();
    let mut count = 0u64;
    while time.map_or(count < INPUT_COUNT, |time| begin.elapsed() < time) {
        for _ in 0..64 {
            let data = mutate(&mut dice, seeds, dictionary);
            let outcome = std::panic::catch_unwind(|| target(&data));
            assert!(outcome.is_ok(), "seed {seed}, input {:?}", String::from_utf8_lossy(&data));
            count += 1;
        }
    }
    println!("{count} inputs");
}

#[test]
fn any_bytes_as_a_connections_input_break_no_promise() {
    let seeds: &[&[u8]] = &[
        b"GET /v1/assign?user_id=42&platform=a%20b&ages=1,2 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/assign HTTP/1.1\r\nHost: a:80\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"units\":{}}GET / HTTP/1.1\r\nHost:\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n5;x=y\r\npedia\r\n0\r\nT: 1\r\n\r\nHEAD /y HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"POST /lines HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\na\r\nb\r\n2\r\n\n\n\r\n3\r\nend\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n",
        b"POST /lines HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n{}\n[]\n1GET /missing HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\nabcDELETE / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"GET http://h/p?q HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nxOPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ];
    let dictionary: &[&[u8]] = &[
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"0",
        b"ff",
        b"Content-Length: 5\r\n",
        b"Content-Length: 601\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: b\r\n",
        b"Connection: close\r\n",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"GET ",
        b"POST ",
        b"FOO ",
        b"/lines",
        b"/missing",
        b"0\r\n\r\n",
        b"1\r\nx\r\n",
        b"\r\n\r\n",
        b"%41",
        b"%",
        b"&",
        b"=",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"?",
        b"#",
        b"http://",
        b"Expect: x\r\n",
        b"Content-Type: text/plain\r\n",
        &[b'x'; 300],
        &[b'\n'; 9],
    ];
    run(fuzz_request_head, seeds, dictionary);
}

#[test]
fn any_bytes_as_a_body_are_read_as_serde_json_reads_them() {
    let deep = format!("{{\"units\":{{}},\"a\":{}{}}}", "[".repeat(63), "]".repeat(63));
    let seeds: &[&[u8]] = &[
        br#"{"units":{"user_id":"42","device_id":7,"none":null},"attributes":{"platform":"android","age":18,"ok":true,"list":["a","b"],"so":1.5e3}}"#,
        br#" { "attributes" : { "ab" : [ 1 , "x" , { "y" : [ ] } ] , "ab" : "\u041c\ud83d\ude00\n" } , "units" : { "u" : "" } , "zz" : [ { } , [ null , false ] ] } "#,
        r#"{"units":{"имя":"значение"},"attributes":{"да":"нет","ab":{"x":"y"}},"units":{"a":-0,"b":123456789012345678901234567890}}"#.as_bytes(),
        br#"{"units":{"a":"1","b":"2","c":"3","d":"4","e":"5","f":"6","g":"7","h":"8"},"attributes":{"n1":-0.0,"n2":0.1,"n3":1e308,"n4":123456789012345,"n5":9007199254740993}}"#,
        deep.as_bytes(),
    ];
    let dictionary: &[&[u8]] = &[
        b"\"",
        b"\\",
        b"\\u",
        b"\\ud800",
        b"\\udc00",
        b"\\u0000",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"true",
        b"false",
        b"-",
        b"0",
        b"1e999",
        b".5",
        b"e",
        b"\"units\":{}",
        b"\"attributes\":{}",
        b"\"attributes\":null",
        b"\"units\":5,",
        b"\x7f",
        b"\x1f",
        b"\n",
        b" ",
        b"\xc3\xa9",
        b"\xff",
        b"\"ab\":\"\\\"\"",
        b"\"i\":\"9\",",
        b"[[[[[[[[",
        b"]]]]]]]]",
        &[b'x'; 260],
    ];
    run(fuzz_body_scanner, seeds, dictionary);
}
