//! Every bound of splitd, in one place. Memory is taken at start from these;
//! whatever a client, a file or another process sends is held against them.
//! A `size` is in bytes, a `count` counts from one.

// ── One request ────────────────────────────────────────────────────────────

/// Units a request may carry, empty ones counted.
pub const UNIT_COUNT_MAX: usize = 8;
/// A unit's value: 1 to this many bytes.
pub const UNIT_VALUE_SIZE_MAX: usize = 256;
/// A unit's name (`user_id`), in a request or in the file.
pub const UNIT_NAME_SIZE_MAX: usize = 256;
/// Nesting of a JSON body and of conditions in the file.
pub const JSON_DEPTH_MAX: usize = 64;
/// Headers of one request.
pub const HEADER_COUNT_MAX: usize = 64;
/// Default for the head of a request (request line and headers).
pub const HEAD_SIZE_MAX: usize = 8 * 1024;
/// Default for a whole body.
pub const BODY_SIZE_MAX: usize = 64 * 1024;
/// Default for the body of a batch, which is read line by line.
pub const BATCH_BODY_SIZE_MAX: usize = 4 * 1024 * 1024;
/// Attributes as they came, kept in the exposure; beyond this they are left out whole.
pub const CONTEXT_SIZE_MAX: usize = 4 * 1024;

// ── One experiments file ───────────────────────────────────────────────────

/// The experiments file itself.
pub const EXPERIMENTS_FILE_SIZE_MAX: usize = 256 * 1024 * 1024;
/// Any name in it: experiment, group, layer, segment, attribute, unit; also `version` and `salt`.
pub const NAME_SIZE_MAX: usize = 256;
/// Declared attributes.
pub const ATTRIBUTE_COUNT_MAX: usize = 1024;
/// Experiments, over all states.
pub const EXPERIMENT_COUNT_MAX: usize = 100_000;
/// Buckets of a layer, unless it says otherwise.
pub const BUCKET_COUNT_DEFAULT: u32 = 10_000;
/// Buckets of a layer at most; a bucket's number fits 16 bits.
pub const BUCKET_COUNT_MAX: u32 = 65_536;
/// One compiled regular expression.
pub const REGEX_SIZE_MAX: usize = 256 * 1024;
/// All compiled regular expressions of a file.
pub const REGEX_TOTAL_SIZE_MAX: usize = 8 * 1024 * 1024;
/// Leaves of all segments of a file once segments named in segments are written
/// out: keeps a short file that doubles at every level from filling memory.
pub const SEGMENT_LEAF_COUNT_MAX: usize = 1 << 20;
/// The largest answer the file's experiments could add up to, payloads and
/// head included; a file that could pass it is refused, so that no request can.
pub const ANSWER_SIZE_MAX: usize = 1024 * 1024;
/// The same for an exposure, and so for one record of a ring.
pub const EXPOSURE_SIZE_MAX: usize = 512 * 1024;
/// The largest answer made for people: an explanation (of one experiment it is far
/// smaller), a status.
pub const REPORT_SIZE_MAX: usize = 16 * 1024 * 1024;

// ── One worker ─────────────────────────────────────────────────────────────

/// Connections a worker holds, unless RLIMIT_NOFILE is lower.
pub const CONNECTION_COUNT_MAX: usize = 65_536;
/// Bytes read from one socket at once. One buffer a worker.
pub const READ_BUFFER_SIZE: usize = 64 * 1024;
/// Unfinished requests a worker keeps at once (slow or large ones; whole
/// requests never need a carry). Beyond it, the oldest holder is closed.
pub const CARRY_COUNT: usize = 1024;
/// Connections whose output the socket did not take at once; beyond it, the
/// oldest holder is closed.
pub const PENDING_OUTPUT_COUNT: usize = 256;
/// The same where answers are as large as reports: as much memory in all.
pub const PENDING_REPORT_COUNT: usize = PENDING_OUTPUT_COUNT * ANSWER_SIZE_MAX / REPORT_SIZE_MAX;

// ── Exposures ──────────────────────────────────────────────────────────────

/// Default size of a ring's record area.
pub const RING_SIZE_DEFAULT: usize = 16 * 1024 * 1024;
const _: () = assert!(RING_SIZE_DEFAULT.is_power_of_two());
/// A ring holds several of the largest records, or it could never take one.
pub const RING_SIZE_MIN: usize = 4 * 1024 * 1024;
const _: () = assert!(RING_SIZE_MIN >= 4 * EXPOSURE_SIZE_MAX);
/// Worker slots of an instance, over all pools. Two rings each; a ring's number fits 16 bits.
pub const SLOT_COUNT_MAX: usize = 1024;
/// Pools of an instance.
pub const POOL_COUNT_MAX: usize = 16;
/// What a child leaves behind when it dies of a broken belief.
pub const LAST_WORDS_SIZE: usize = 4096;

// ── One plan ───────────────────────────────────────────────────────────────

/// A compiled plan: every offset within it fits 32 bits. The largest file fits
/// many times over; one that repeats long names in very many groups does not.
pub const PLAN_SIZE_MAX: usize = 2 * 1024 * 1024 * 1024 - 64;
const _: () = assert!(PLAN_SIZE_MAX <= u32::MAX as usize);
/// What a worker touches of a new plan, or gives back of an old one, between two requests.
pub const PLAN_STEP_SIZE: usize = 256 * 1024;

// ── The logger ─────────────────────────────────────────────────────────────

/// One batch from the drain to the sink; it holds any exposure.
pub const BATCH_SIZE: usize = 1024 * 1024;
const _: () = assert!(BATCH_SIZE >= EXPOSURE_SIZE_MAX);
/// Batches there are: one being filled, the others with the sink. What a sink
/// confirms late is bounded by them.
pub const BATCH_COUNT: usize = 8;
/// Bytes of the spool that are under way to the sink at once.
pub const REPLAY_SIZE_MAX: usize = 4 * 1024 * 1024;
/// What one ring may give in its turn while others wait.
pub const RING_TURN_SIZE: usize = 64 * 1024;

// ── Checking an experiments file ───────────────────────────────────────────

/// Faults reported of one file; the last line says how many more there are.
pub const FAULT_COUNT_MAX: usize = 1000;
/// Kinds of unit that the layers and overrides of a file name.
pub const UNIT_KIND_COUNT_MAX: usize = 1024;
/// Nesting of a condition once segments named in segments are written out, so
/// that plain recursion over one never runs out of stack.
pub const SEGMENT_DEPTH_MAX: usize = 512;
/// What "did you mean" may cost for a whole file, in pairs of characters
/// compared: 0.1 s or so, however many names and faults there are.
pub const SUGGESTION_WORK_MAX: usize = 50_000_000;

// ── One worker where the kernel moves the bytes ────────────────────────────

/// Operations queued before they are handed over in the middle of a turn.
pub const OPERATION_COUNT: u32 = 256;
/// Completions with a place of their own; the kernel keeps more of them elsewhere.
pub const COMPLETION_COUNT: u32 = 4096;
/// Buffers from which the kernel picks one for what comes in. All go back in
/// the turn in which they were filled, but for those of senders who don't read.
pub const RECEIVE_BUFFER_COUNT: u16 = 256;
/// Bytes of each: 16 requests of 100 attributes in one piece.
pub const RECEIVE_BUFFER_SIZE: usize = 16 * 1024;
const _: () = assert!(RECEIVE_BUFFER_SIZE <= READ_BUFFER_SIZE);
/// Answers under way at once; what finds none is sent by a call of its own.
pub const SEND_SLOT_COUNT: u32 = 512;
/// The largest output that goes this way; a larger one is sent by a call of its own.
pub const SEND_SLOT_SIZE: usize = 32 * 1024;
