//! Key agreement, payload encryption and message keys of binary connections (§3).
//!
//! The scheme is v2's: X25519, then AES-128-CBC with one IV for the whole connection and an MD5
//! over ciphertext as key of a message. It is what the SDKs speak, not what one would design.
//!
//! Everything here works in pieces of 48 bytes: three cipher blocks, 64 base64 characters, one
//! MD5 block. So nothing needs memory besides its output.

use core::fmt;

use aes::cipher::{BlockDecryptMut, BlockEncryptMut, InnerIvInit, KeyInit};
use aes::{Aes128Dec, Aes128Enc};
use base64::Engine;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use md5::{Digest, Md5};
use x25519_dalek::{PublicKey, StaticSecret};

use super::frame::{Recv, RecvHead, Send};

/// Size of a message key: hexadecimal MD5.
pub const MESSAGE_KEY_SIZE: usize = 32;
/// Size of a salt, in characters; it serves as the IV.
pub const SALT_SIZE: usize = 16;

/// One turn of cipher, base64 and MD5.
const PIECE: usize = 48;
const BLOCK: usize = 16;

/// Standard alphabet with padding. Stray bits behind the last byte are ignored, as v2 does.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Size of the wire form of `plain` plaintext bytes.
#[must_use]
pub const fn sealed_size(plain: usize) -> usize {
    ((plain / BLOCK + 1) * BLOCK).div_ceil(3) * 4
}

/// Why a peer's public key cannot be used. Refused with
/// [`ClientKeyIsEmpty`](crate::code::Code::ClientKeyIsEmpty).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not standard padded base64.
    #[error("public key is not base64")]
    Encoding,
    /// Fewer than 32 bytes, or none.
    #[error("public key is shorter than 32 bytes")]
    Short,
    /// All zero, or a point that gives everybody the same secret.
    #[error("public key is of low order")]
    Weak,
    /// A salt shorter than 16 bytes (seen by clients only).
    #[error("salt is shorter than 16 bytes")]
    Salt,
}

/// Why a payload cannot be opened. Answered with
/// [`PayloadDecodeError`](crate::code::Code::PayloadDecodeError).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// Not standard padded base64.
    #[error("ciphertext is not base64")]
    Encoding,
    /// Empty, or no whole number of blocks.
    #[error("ciphertext is not made of whole blocks")]
    Size,
    /// The last block does not end in PKCS #7 padding.
    #[error("ciphertext is not padded")]
    Padding,
}

/// An X25519 secret with its public half in the form the wire carries.
struct KeyPair {
    secret: StaticSecret,
    public_base64: [u8; 44],
}

impl KeyPair {
    fn from_seed(seed: [u8; 32]) -> Self {
        let secret = StaticSecret::from(seed);
        let mut public_base64 = [0; 44];
        // 32 bytes always fill 44 characters.
        let written = BASE64.encode_slice(PublicKey::from(&secret), &mut public_base64);
        debug_assert_eq!(written, Ok(44));
        Self { secret, public_base64 }
    }

    fn public_base64(&self) -> &str {
        core::str::from_utf8(&self.public_base64).unwrap_or_default()
    }

    fn agree(&self, peer_base64: &str, iv: [u8; SALT_SIZE]) -> Result<Cipher, KeyError> {
        let mut decoded = [0; 96];
        let size = match BASE64.decode_slice(peer_base64, &mut decoded) {
            Ok(size) => size,
            // Longer keys count by their first 32 bytes; those are in the first 44 characters.
            Err(base64::DecodeSliceError::OutputSliceTooSmall) => peer_base64
                .get(..44)
                .and_then(|head| BASE64.decode_slice(head, &mut decoded).ok())
                .ok_or(KeyError::Encoding)?,
            Err(base64::DecodeSliceError::DecodeError(_)) => return Err(KeyError::Encoding),
        };
        let peer = decoded.get(..size).unwrap_or_default();
        let peer: [u8; 32] = *peer.first_chunk().ok_or(KeyError::Short)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        if peer == [0; 32] || !shared.was_contributory() {
            return Err(KeyError::Weak);
        }
        let mut text = [0; 44];
        let written = BASE64.encode_slice(shared.as_bytes(), &mut text);
        debug_assert_eq!(written, Ok(44));
        let digest: [u8; 16] = Md5::digest(text).into();
        let [key, _] = hex(digest);
        Ok(Cipher { key, iv })
    }
}

/// The server's half of an agreement, made for one connection.
pub struct ServerKey(KeyPair);

impl ServerKey {
    /// Makes the key pair from 32 random bytes, which the caller draws.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(KeyPair::from_seed(seed))
    }

    /// What CONNACK carries as server key.
    #[must_use]
    pub fn public_base64(&self) -> &str {
        self.0.public_base64()
    }

    /// Agrees with the key of a CONNECT. `salt` is 16 characters of `[0-9a-zA-Z]`; the same go
    /// out in CONNACK.
    ///
    /// # Errors
    /// See [`KeyError`]; refuse the connection.
    pub fn agree(&self, client_key_base64: &str, salt: [u8; 16]) -> Result<Cipher, KeyError> {
        self.0.agree(client_key_base64, salt)
    }
}

/// The client's half of an agreement, for the load generator and for tests.
pub struct ClientKey(KeyPair);

impl ClientKey {
    /// Makes the key pair from 32 random bytes, which the caller draws.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(KeyPair::from_seed(seed))
    }

    /// What CONNECT carries as client key.
    #[must_use]
    pub fn public_base64(&self) -> &str {
        self.0.public_base64()
    }

    /// Agrees with what CONNACK brought; a longer salt is cut to 16 bytes.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn agree(&self, server_key_base64: &str, salt: &str) -> Result<Cipher, KeyError> {
        let iv = *salt.as_bytes().first_chunk().ok_or(KeyError::Salt)?;
        self.0.agree(server_key_base64, iv)
    }
}

/// What both sides of a connection encrypt with: 32 bytes. The key schedule (704 bytes with the
/// portable fallback) is made anew for each use, which costs some tens of nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cipher {
    key: [u8; 16],
    iv: [u8; 16],
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    /// A cipher from key and IV as they are, for tests and for sessions that move.
    #[must_use]
    pub const fn from_parts(key: [u8; 16], iv: [u8; 16]) -> Self {
        Self { key, iv }
    }

    /// Expands the key for several uses in a row.
    #[must_use]
    pub fn prepare(&self) -> Sealer {
        Sealer { schedule: Aes128Enc::new(&self.key.into()), iv: self.iv }
    }

    /// Appends the wire form of `plain` (base64 text) to `out`.
    pub fn seal(&self, plain: &[u8], out: &mut Vec<u8>) {
        self.prepare().seal(plain, out);
    }

    /// Appends the plaintext of `wire` to `out`.
    ///
    /// # Errors
    /// See [`CipherError`]; `out` is then unchanged.
    pub fn open(&self, wire: &[u8], out: &mut Vec<u8>) -> Result<(), CipherError> {
        let start = out.len();
        let opened = self.open_tail(wire, start, out);
        if opened.is_err() {
            out.truncate(start);
        }
        opened
    }

    fn open_tail(&self, wire: &[u8], start: usize, out: &mut Vec<u8>) -> Result<(), CipherError> {
        if BASE64.decode_vec(wire, out).is_err() {
            // Line breaks inside base64 are skipped, as v2 does.
            out.truncate(start);
            let joined: Vec<u8> =
                wire.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
            if joined.len() == wire.len() {
                return Err(CipherError::Encoding);
            }
            BASE64.decode_vec(joined, out).map_err(|_| CipherError::Encoding)?;
        }
        let text = out.get_mut(start..).unwrap_or_default();
        let (blocks, rest) = text.as_chunks_mut::<BLOCK>();
        if blocks.is_empty() || !rest.is_empty() {
            return Err(CipherError::Size);
        }
        let schedule = Aes128Dec::new(&self.key.into());
        let mut chain = cbc::Decryptor::inner_iv_init(&schedule, &self.iv.into());
        for block in &mut *blocks {
            chain.decrypt_block_mut(block.into());
        }
        let last = blocks.last().copied().unwrap_or_default();
        let pad = last.last().copied().unwrap_or_default();
        let filler = last.iter().rev().take(usize::from(pad));
        if pad == 0 || usize::from(pad) > BLOCK || filler.into_iter().any(|&byte| byte != pad) {
            return Err(CipherError::Padding);
        }
        out.truncate(out.len() - usize::from(pad));
        Ok(())
    }

    /// Hexadecimal MD5 over the wire form of the concatenated `parts` (§3).
    #[must_use]
    pub fn message_key<'a>(
        &self,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> [u8; MESSAGE_KEY_SIZE] {
        self.prepare().message_key(parts)
    }

    /// The key a client puts into `send`; its payload must be in wire form already.
    #[must_use]
    pub fn send_key(&self, send: &Send<'_>) -> [u8; MESSAGE_KEY_SIZE] {
        let (mut seq, mut kind) = (itoa::Buffer::new(), itoa::Buffer::new());
        self.message_key([
            seq.format(send.client_seq).as_bytes(),
            send.client_msg_no.as_bytes(),
            send.channel_id.as_bytes(),
            kind.format(send.channel_type).as_bytes(),
            send.payload,
        ])
    }

    /// Whether `send` carries the key that this connection would give it.
    #[must_use]
    pub fn verify_send(&self, send: &Send<'_>) -> bool {
        send.msg_key.len() == MESSAGE_KEY_SIZE && send.msg_key.as_bytes() == self.send_key(send)
    }

    /// Whether `recv` carries the right key, as a client checks it.
    #[must_use]
    pub fn verify_recv(&self, recv: &Recv<'_>) -> bool {
        let head = RecvHead {
            flags: recv.flags,
            setting: recv.setting,
            from_uid: recv.from_uid,
            channel_id: recv.channel_id,
            channel_type: recv.channel_type,
            expire: recv.expire,
            client_msg_no: recv.client_msg_no,
            message_id: recv.message_id,
            message_seq: recv.message_seq,
            timestamp: recv.timestamp,
            topic: recv.topic,
        };
        recv.msg_key.as_bytes() == self.prepare().recv_key(&head, recv.payload)
    }
}

/// A [`Cipher`] with its key expanded: for a run of uses, not to be kept.
pub struct Sealer {
    schedule: Aes128Enc,
    iv: [u8; 16],
}

impl Sealer {
    /// Appends the wire form of `plain` to `out`.
    pub fn seal(&self, plain: &[u8], out: &mut Vec<u8>) {
        out.reserve(sealed_size(plain.len()));
        let mut pieces = Pieces::new(self, out);
        pieces.update(plain);
        pieces.finish();
    }

    /// See [`Cipher::message_key`].
    #[must_use]
    pub fn message_key<'a>(
        &self,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> [u8; MESSAGE_KEY_SIZE] {
        let mut digest = Md5::new();
        let mut pieces = Pieces::new(self, &mut digest);
        for part in parts {
            pieces.update(part);
        }
        pieces.finish();
        let [head, tail] = hex(digest.finalize().into());
        let mut key = [0; MESSAGE_KEY_SIZE];
        let (first, second) = key.split_at_mut(16);
        first.copy_from_slice(&head);
        second.copy_from_slice(&tail);
        key
    }

    /// The key of a RECV whose payload has the wire form `payload`.
    #[must_use]
    pub fn recv_key(&self, head: &RecvHead<'_>, payload: &[u8]) -> [u8; MESSAGE_KEY_SIZE] {
        let (mut id, mut seq) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (mut time, mut kind) = (itoa::Buffer::new(), itoa::Buffer::new());
        self.message_key([
            id.format(head.message_id).as_bytes(),
            seq.format(head.message_seq).as_bytes(),
            head.client_msg_no.as_bytes(),
            time.format(head.timestamp).as_bytes(),
            head.from_uid.as_bytes(),
            head.channel_id.as_bytes(),
            kind.format(head.channel_type).as_bytes(),
            payload,
        ])
    }
}

/// Lower-case hexadecimal digits of 16 bytes, in two halves.
#[expect(clippy::cast_possible_truncation, reason = "only the low nibble is wanted")]
fn hex(bytes: [u8; 16]) -> [[u8; 16]; 2] {
    let value = u128::from_be_bytes(bytes);
    let digit = |place: usize| match (value >> (124 - 4 * place)) as u8 & 0x0f {
        low @ 0..10 => b'0' + low,
        high => b'a' - 10 + high,
    };
    [core::array::from_fn(digit), core::array::from_fn(|place| digit(place + 16))]
}

/// Where base64 text goes.
trait Text {
    fn put(&mut self, text: &[u8]);
}

impl Text for Vec<u8> {
    fn put(&mut self, text: &[u8]) {
        self.extend_from_slice(text);
    }
}

impl Text for Md5 {
    fn put(&mut self, text: &[u8]) {
        Digest::update(self, text);
    }
}

/// Encrypts a stream of bytes piece by piece into base64 text.
struct Pieces<'a, T> {
    chain: cbc::Encryptor<&'a Aes128Enc>,
    piece: [u8; PIECE],
    filled: usize,
    text: &'a mut T,
}

impl<'a, T: Text> Pieces<'a, T> {
    fn new(sealer: &'a Sealer, text: &'a mut T) -> Self {
        Self {
            chain: cbc::Encryptor::inner_iv_init(&sealer.schedule, &sealer.iv.into()),
            piece: [0; PIECE],
            filled: 0,
            text,
        }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while let Some(room) = self.piece.get_mut(self.filled..) {
            let size = room.len().min(bytes.len());
            let (head, rest) = bytes.split_at(size);
            if let Some(place) = room.get_mut(..size) {
                place.copy_from_slice(head);
            }
            self.filled += size;
            bytes = rest;
            if self.filled < PIECE {
                return;
            }
            self.flush(PIECE);
            self.filled = 0;
        }
    }

    /// Pads, and puts out what is left.
    #[expect(clippy::cast_possible_truncation, reason = "the padding is 1 to 16")]
    fn finish(mut self) {
        let size = (self.filled / BLOCK + 1) * BLOCK;
        let pad = (size - self.filled) as u8;
        if let Some(place) = self.piece.get_mut(self.filled..size) {
            place.fill(pad);
        }
        self.flush(size);
    }

    fn flush(&mut self, size: usize) {
        let Some(piece) = self.piece.get_mut(..size) else {
            return;
        };
        let (blocks, _) = piece.as_chunks_mut::<BLOCK>();
        for block in blocks {
            self.chain.encrypt_block_mut(block.into());
        }
        let mut text = [0; PIECE / 3 * 4];
        if let Ok(written) = BASE64.encode_slice(&*piece, &mut text) {
            self.text.put(text.get(..written).unwrap_or_default());
        }
    }
}
