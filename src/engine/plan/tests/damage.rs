//! Bytes that are no plan, or not quite.

use super::*;
use crate::engine::plan::image::{self, Line};

/// The image in memory that may be written.
fn lines(image: &PlanImage) -> Vec<Line> {
    bytemuck::cast_slice::<u8, Line>(image.bytes()).to_vec()
}

fn bytes(lines: &mut [Line]) -> &mut [u8] {
    bytemuck::cast_slice_mut(lines)
}

/// Makes the checksums fit what the bytes have become.
fn reseal(bytes: &mut [u8]) {
    let body_checksum = image::body_checksum(bytes);
    let header: &mut Header = bytemuck::from_bytes_mut(&mut bytes[..size_of::<Header>()]);
    header.body_checksum = body_checksum;
    header.header_checksum = image::header_checksum(*header);
}

fn edge() -> (Catalog, PlanImage) {
    let (source, ..) = golden("edge");
    let catalog = check(&source).unwrap();
    let image = compile(&catalog, b"{}").unwrap();
    (catalog, image)
}

#[test]
fn a_flip_of_any_byte_is_refused() {
    let (_, image) = edge();
    let mut damaged = lines(&image);
    for index in 0..image.bytes().len() {
        bytes(&mut damaged)[index] ^= 1 << (index % 8);
        assert!(Plan::open(bytes(&mut damaged)).is_err(), "byte {index}");
        bytes(&mut damaged)[index] ^= 1 << (index % 8);
    }
    Plan::open(bytes(&mut damaged)).unwrap();
}

#[test]
fn a_plan_that_was_cut_or_moved_is_refused() {
    let (_, image) = edge();
    for size in (0..image.bytes().len()).step_by(61) {
        assert!(Plan::open(&image.bytes()[..size]).is_err(), "{size} bytes");
    }
    assert!(Plan::open(&[]).is_err());
    assert!(Plan::open(&[0; 4096]).is_err());
    let mut longer = lines(&image);
    longer.push(bytemuck::Zeroable::zeroed());
    assert!(matches!(Plan::open(bytes(&mut longer)), Err(PlanFault::Size { .. })));
    let moved = [&[0], image.bytes()].concat();
    assert!(Plan::open(&moved[1..]).is_err() || moved[1..].as_ptr().align_offset(64) == 0);
}

#[test]
fn a_plan_of_another_layout_is_refused_by_its_number() {
    let (_, image) = edge();
    let mut other = lines(&image);
    let header: &mut Header = bytemuck::from_bytes_mut(&mut bytes(&mut other)[..size_of::<Header>()]);
    header.layout_version += 1;
    let version = header.layout_version;
    reseal(bytes(&mut other));
    assert_eq!(Plan::open(bytes(&mut other)).unwrap_err(), PlanFault::Layout { version });
}

#[test]
fn ends_that_lead_past_a_layers_runs_are_refused() {
    let (_, image) = edge();
    let plan = Plan::open(image.bytes()).unwrap();
    let layers = plan.tables.layers;
    let layers_start = layers.as_ptr().addr() - image.bytes().as_ptr().addr();
    let mut tried_count = 0;
    for (row, layer) in layers.iter().enumerate() {
        let batch = plan.tables.batch_of(row).unwrap();
        if batch.level_count > 0 || batch.bucket_count == 1 {
            continue;
        }
        let mut damaged = lines(&image);
        // Every end is before the last bucket.
        let ends = &mut bytes(&mut damaged)[layers_start + (row + 1) * size_of_val(layer) - 16..][..16];
        ends.copy_from_slice(bytemuck::bytes_of(&[i16::MIN; 8]));
        reseal(bytes(&mut damaged));
        assert_eq!(Plan::open(bytes(&mut damaged)).unwrap_err(), PlanFault::Row { table: "layers", row });
        tried_count += 1;
    }
    assert!(tried_count > 0);
}

/// What no checksum tells: a plan that was written wrong is refused, or at least
/// decides something without panicking or going round for ever.
#[test]
fn a_plan_written_wrong_neither_panics_nor_hangs() {
    let (mut refused_count, mut accepted_count) = (0, 0);
    for seed in 0..40 {
        let mut random = Random(seed);
        let catalog = if seed % 4 == 0 { edge().0 } else { arbitrary::catalog(&mut random) };
        let image = compile(&catalog, b"{}").unwrap();
        let whole = lines(&image);
        let requests: Vec<Request> = (0..6).map(|_| arbitrary::request(&mut random, &catalog)).collect();
        let header = *Plan::open(image.bytes()).unwrap().header;
        for _ in 0..150 {
            let mut damaged = whole.clone();
            let image = bytes(&mut damaged);
            for _ in 0..1 + random.below(3) {
                // in some table, or in the header
                let extent = random.of(&header.tables);
                let (start, size) = match random.below(8) {
                    0 => (0, size_of::<Header>()),
                    _ => (extent.start as usize, (extent.count as usize * 16).clamp(1, 4096)),
                };
                let index = (start + random.below(size)).min(image.len() - 1);
                let flipped = image[index] ^ 1 << random.below(8);
                image[index] = random.of(&[0, 1, 255, flipped]);
            }
            reseal(image);
            let outcome = std::panic::catch_unwind(|| {
                let plan = Plan::open(bytemuck::cast_slice(&damaged))?;
                let mut worker = Worker::new(plan);
                for request in &requests {
                    for chosen in worker.decide(request) {
                        let sizes = [
                            plan.answer_fragment(&chosen),
                            plan.exposure_fragment(&chosen),
                            plan.group_json(&chosen),
                        ];
                        std::hint::black_box((
                            sizes,
                            plan.payload_json(&chosen),
                            plan.experiment_name(chosen.experiment),
                        ));
                    }
                    (0..plan.experiment_count())
                        .for_each(|index| _ = worker.decide_one(index as u32, request));
                }
                Ok::<_, PlanFault>(())
            });
            match outcome {
                Ok(Ok(())) => accepted_count += 1,
                Ok(Err(_)) => refused_count += 1,
                Err(_) => panic!("seed {seed}"),
            }
        }
    }
    println!("{refused_count} refused, {accepted_count} accepted");
    assert!(
        refused_count > 500 && accepted_count > 500,
        "{refused_count} refused, {accepted_count} accepted"
    );
}
