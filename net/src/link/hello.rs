//! How a link begins: who is there, and whether both know the secret.
//!
//! ```text
//!   dialer                                     acceptor
//!     Hello (who, wanted shard, nonce) ──────────►
//!     ◄────────── Challenge (who, nonce, its proof)   or Refusal
//!     Proof ─────────────────────────────────────►
//!     ◄────────────────────────────────── Welcome     or Refusal
//! ```
//!
//! A proof is HMAC-SHA256 with the secret over a label, the Hello and the Challenge, so neither
//! side's proof is of use on another link or in the other direction. Nothing is sent before it was
//! asked for. Fields are only ever added at the end, and readers skip what they do not know: so
//! every version can read the hello of every other, and the lower of both is spoken.

use hmac::{Hmac, Mac};
use jindou_core::id::NodeId;
use sha2::Sha256;

/// What a hello begins with.
pub const MAGIC: [u8; 4] = *b"JNDU";
/// The oldest version that this node speaks.
pub const VERSION_MIN: u8 = 1;
/// The newest.
pub const VERSION_MAX: u8 = 1;
/// A refusal's text is cut to this many bytes.
const TEXT_SIZE_MAX: usize = 1024;
/// HMAC-SHA256.
pub(crate) const PROOF_SIZE: usize = 32;

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Envelopes, raft frames and control messages of a member.
    Bundle,
    /// One control message, also of a node that is no member yet.
    Control,
}

/// One side, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// The node.
    pub node: NodeId,
    /// Drawn at its start.
    pub incarnation: u64,
    /// The shard at this end of the link.
    pub shard: u16,
    /// The node's shards.
    pub shard_count: u16,
    /// The cluster's slots.
    pub slot_count: u16,
    /// The cluster; 0 when the node does not know it yet.
    pub cluster_id: u64,
    /// Whether it knows a secret.
    pub has_secret: bool,
    /// Used once.
    pub nonce: [u8; 32],
}

/// The first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest version that the dialer speaks.
    pub version_min: u8,
    /// The newest.
    pub version_max: u8,
    /// What for.
    pub purpose: Purpose,
    /// The shard of the acceptor's node that is wanted.
    pub wanted: u16,
    /// The dialer.
    pub side: Side,
}

/// The acceptor's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The version that is spoken from here on.
    pub version: u8,
    /// The acceptor.
    pub side: Side,
    /// When both know a secret.
    pub proof: Option<[u8; 32]>,
}

/// What kind of refusal. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalCode {
    /// No common version, or no hello at all.
    Version,
    /// The dialer has reached itself.
    Itself,
    /// A member of another cluster.
    Cluster,
    /// Another number of slots.
    SlotCount,
    /// The node id belongs to another node that runs.
    InUse,
    /// Not a member, and not joining.
    NotMember,
    /// The secrets differ, or one is missing.
    Secret,
    /// There is no such shard.
    NoSuchShard,
    /// Somebody else lives at the address.
    OtherNode,
    /// Refused for now.
    Later,
    /// One end speaks TLS and the other does not, or a certificate is not accepted.
    Tls,
    /// From a newer version.
    Other(u8),
}

impl RefusalCode {
    fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Version,
            2 => Self::Itself,
            3 => Self::Cluster,
            4 => Self::SlotCount,
            5 => Self::InUse,
            6 => Self::NotMember,
            7 => Self::Secret,
            8 => Self::NoSuchShard,
            9 => Self::OtherNode,
            10 => Self::Later,
            11 => Self::Tls,
            other => Self::Other(other),
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Version => 1,
            Self::Itself => 2,
            Self::Cluster => 3,
            Self::SlotCount => 4,
            Self::InUse => 5,
            Self::NotMember => 6,
            Self::Secret => 7,
            Self::NoSuchShard => 8,
            Self::OtherNode => 9,
            Self::Later => 10,
            Self::Tls => 11,
            Self::Other(other) => other,
        }
    }
}

/// Why a link is not wanted, and what to do about it, for the log of the refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The kind.
    pub code: RefusalCode,
    /// The sentence.
    pub text: String,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Reads a frame's body. The text comes from a stranger: what is not printable is replaced.
    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let (&code, text) = body.split_first()?;
        let text = text.get(..TEXT_SIZE_MAX).unwrap_or(text);
        let text = String::from_utf8_lossy(text);
        let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        Some(Self { code: RefusalCode::of(code), text: clean.collect() })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.code.byte());
        let text = self.text.as_bytes();
        out.extend_from_slice(text.get(..TEXT_SIZE_MAX).unwrap_or(text));
    }
}

/// Takes fields off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (&array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(array)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

impl Side {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.node.0.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.shard.to_le_bytes());
        out.extend_from_slice(&self.shard_count.to_le_bytes());
        out.extend_from_slice(&self.slot_count.to_le_bytes());
        out.extend_from_slice(&self.cluster_id.to_le_bytes());
        out.push(u8::from(self.has_secret));
        out.extend_from_slice(&self.nonce);
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            node: NodeId(fields.u64()?),
            incarnation: fields.u64()?,
            shard: fields.u16()?,
            shard_count: fields.u16()?,
            slot_count: fields.u16()?,
            cluster_id: fields.u64()?,
            has_secret: fields.u8()? != 0,
            nonce: fields.array()?,
        })
    }
}

impl Hello {
    /// A frame's body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[self.version_min, self.version_max]);
        out.push(match self.purpose {
            Purpose::Bundle => 0,
            Purpose::Control => 1,
        });
        out.extend_from_slice(&self.wanted.to_le_bytes());
        self.side.encode(&mut out);
        out
    }

    /// Reads a frame's body; `None`: not a hello.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        if fields.array()? != MAGIC {
            return None;
        }
        Some(Self {
            version_min: fields.u8()?,
            version_max: fields.u8()?,
            purpose: match fields.u8()? {
                0 => Purpose::Bundle,
                1 => Purpose::Control,
                _ => return None,
            },
            wanted: fields.u16()?,
            side: Side::decode(&mut fields)?,
        })
    }

    /// The version that both speak.
    pub fn version(&self) -> Option<u8> {
        let version = self.version_max.min(VERSION_MAX);
        (version >= self.version_min && version >= VERSION_MIN).then_some(version)
    }
}

impl Challenge {
    /// A frame's body: room for the proof, then what it covers.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.proof.is_some())];
        out.extend_from_slice(&self.proof.unwrap_or_default());
        out.push(self.version);
        self.side.encode(&mut out);
        out
    }

    /// Reads a frame's body.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let (is_proven, proof) = (fields.u8()? != 0, fields.array()?);
        Some(Self {
            proof: is_proven.then_some(proof),
            version: fields.u8()?,
            side: Side::decode(&mut fields)?,
        })
    }

    /// The part of a body that the proofs cover.
    fn covered(body: &[u8]) -> &[u8] {
        body.get(PROOF_SIZE + 1..).unwrap_or_default()
    }
}

/// Which side proves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Prover {
    Dialer,
    Acceptor,
}

impl Prover {
    /// What stands in front of the hello, so that no proof passes for one of the other side.
    fn label(self) -> &'static [u8] {
        match self {
            Self::Dialer => b"jindou link dialer 1",
            Self::Acceptor => b"jindou link acceptor 1",
        }
    }
}

/// HMAC takes keys of any size.
#[expect(clippy::expect_used, reason = "`new_from_slice` has no failing case for HMAC")]
pub(crate) fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("any size of key")
}

/// The bodies as they crossed the link, so that fields of newer versions are covered too.
fn mac(secret: &[u8], prover: Prover, hello: &[u8], challenge: &[u8]) -> Hmac<Sha256> {
    let mut mac = keyed(secret);
    mac.update(prover.label());
    // With its size, so that there is one way only to read the whole.
    mac.update(&(hello.len() as u64).to_le_bytes());
    mac.update(hello);
    mac.update(Challenge::covered(challenge));
    mac
}

/// That `prover` knows the secret. `hello` and `challenge` are bodies.
pub(crate) fn prove(
    secret: &[u8],
    prover: Prover,
    hello: &[u8],
    challenge: &[u8],
) -> [u8; PROOF_SIZE] {
    mac(secret, prover, hello, challenge).finalize().into_bytes().into()
}

/// Whether `proof` is `prover`'s. Takes the same time whatever it is.
pub(crate) fn is_proof(
    secret: &[u8],
    prover: Prover,
    hello: &[u8],
    challenge: &[u8],
    proof: &[u8],
) -> bool {
    mac(secret, prover, hello, challenge).verify_slice(proof).is_ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn hello() -> Hello {
        let side = Side {
            node: NodeId(1001),
            incarnation: 5,
            shard: 1,
            shard_count: 2,
            slot_count: 64,
            cluster_id: 0,
            has_secret: true,
            nonce: [7; 32],
        };
        Hello { version_min: 1, version_max: 3, purpose: Purpose::Bundle, wanted: 4, side }
    }

    fn challenge(proof: Option<[u8; PROOF_SIZE]>) -> Challenge {
        Challenge { version: 1, side: hello().side, proof }
    }

    /// Golden bytes: another version reads them.
    #[test]
    fn a_hello_begins_with_magic_and_versions() {
        let bytes = hello().encode();
        assert_eq!(bytes[..17], *b"JNDU\x01\x03\x00\x04\x00\xe9\x03\x00\x00\x00\x00\x00\x00");
        assert_eq!(bytes.len(), 9 + 8 + 8 + 2 + 2 + 2 + 8 + 1 + 32);
    }

    #[test]
    fn what_a_newer_version_adds_is_skipped_and_what_is_missing_is_an_error() {
        let mut bytes = hello().encode();
        bytes.extend_from_slice(b"more");
        assert_eq!(Hello::decode(&bytes), Some(hello()));
        for proof in [None, Some([9; PROOF_SIZE])] {
            let mut bytes = challenge(proof).encode();
            for size in 0..bytes.len() {
                assert_eq!(Challenge::decode(&bytes[..size]), None);
            }
            bytes.push(0);
            assert_eq!(Challenge::decode(&bytes), Some(challenge(proof)));
        }
        let bytes = hello().encode();
        for size in 0..bytes.len() {
            assert_eq!(Hello::decode(&bytes[..size]), None);
        }
    }

    #[test]
    fn the_lower_of_both_versions_is_spoken() {
        let with = |min, max| Hello { version_min: min, version_max: max, ..hello() }.version();
        assert_eq!(with(1, 1), Some(1));
        assert_eq!(with(1, 9), Some(1));
        assert_eq!(with(2, 9), None);
        assert_eq!(with(0, 0), None);
    }

    #[test]
    fn a_proof_is_of_one_side_one_secret_and_one_handshake() {
        let (ours, theirs) = (hello().encode(), challenge(None).encode());
        let proof = prove(b"secret", Prover::Dialer, &ours, &theirs);
        let check = |secret: &[u8], prover, ours: &[u8], theirs: &[u8]| {
            is_proof(secret, prover, ours, theirs, &proof)
        };
        assert!(check(b"secret", Prover::Dialer, &ours, &theirs));
        // The place of the proof itself is not covered.
        assert!(check(b"secret", Prover::Dialer, &ours, &challenge(Some([1; 32])).encode()));
        assert!(!check(b"Secret", Prover::Dialer, &ours, &theirs));
        assert!(!check(b"secret", Prover::Acceptor, &ours, &theirs));
        let mut other = ours.clone();
        other[40] ^= 1;
        assert!(!check(b"secret", Prover::Dialer, &other, &theirs));
        let mut other = theirs.clone();
        *other.last_mut().unwrap() ^= 1;
        assert!(!check(b"secret", Prover::Dialer, &ours, &other));
    }

    #[test]
    fn a_strangers_text_is_short_and_printable() {
        let mut body = vec![6];
        body.extend_from_slice("bad \u{1b}[31m news\n".as_bytes());
        body.resize(5000, b'x');
        let refusal = Refusal::decode(&body).unwrap();
        assert_eq!(refusal.code, RefusalCode::NotMember);
        assert!(refusal.text.starts_with("bad  [31m news x"));
        assert!(refusal.text.len() <= TEXT_SIZE_MAX);
        assert_eq!(Refusal::decode(&[]), None);
    }
}
