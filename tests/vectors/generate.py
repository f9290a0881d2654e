#!/usr/bin/env python3
"""Makes session.txt: the wire format of a pair of peers, computed without a line of punchlan's code.

Written from the documentation of src/wire and src/crypto alone, and from RFC 5869 (HKDF) and the Noise
specification. Needs the Python package `cryptography`. tests/vectors.rs checks punchlan against the result.
"""
import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

NETWORK_KEY, SEED_A, SEED_B = (bytes(range(n, n + 32)) for n in (0, 32, 64))
EPOCH = b"\0\0\0\0"
# What the generators of tests/vectors.rs draw.
INDEX_A, EPHEMERAL_A = 0x1894CB, bytes.fromhex("58b8d65445f6f3f902ffb23f9d7eeaa2f172f5957e403673ba0e97611c4dbb8d")
INDEX_B, EPHEMERAL_B = 0xEC4D62, bytes.fromhex("f02a8a621d425cd21506d014ea4a7280bf7eacfb4a381033b35604b9a79600db")
SALT = bytes.fromhex("9dcb941858b8d65445f6f3f902ffb23f")
NUMBER = 1000


def mac(key, *parts):
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def hkdf(salt, secret, label, *context, length=32):
    prk, info, t, out = mac(salt or bytes(32), secret), b"punchlan " + label + b"\0" + b"".join(context), b"", b""
    for i in range(1, 9):
        t = mac(prk, t, info, bytes([i]))
        out += t
    return out[:length]


class Device:
    def __init__(self, seed):
        self.signing = Ed25519PrivateKey.from_private_bytes(hkdf(b"punchlan device", seed, b"device signing"))
        self.id = self.signing.public_key().public_bytes_raw()
        self.dh = X25519PrivateKey.from_private_bytes(hkdf(b"punchlan device", seed, b"device x25519"))
        self.x25519 = self.dh.public_key().public_bytes_raw()


def of_network(label, *context):
    return hkdf(b"punchlan network", NETWORK_KEY, label, *context)


A, B = Device(SEED_A), Device(SEED_B)
NETWORK = Ed25519PrivateKey.from_private_bytes(of_network(b"network signing", EPOCH))
NETWORK_ID = NETWORK.public_key().public_bytes_raw()
PSK, ADDRESSES = of_network(b"psk", EPOCH), of_network(b"addresses")


def announcement(device):
    text = b"\1" + EPOCH + struct.pack(">Q", 7) + device.id + device.x25519 + b"\0\0\0\5" + b"\5alice"
    text += b"\1" + bytes([10, 77, 0, 9]) + b"\2"
    text += b"\1\4" + bytes([192, 0, 2, 1]) + struct.pack(">H", 4660)
    text += b"\3\6" + bytes.fromhex("20010db8000000000000000000000001") + struct.pack(">H", 9)
    return text + device.signing.sign(b"punchlan announcement" + NETWORK_ID + text)


class Noise:
    """Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s."""

    def __init__(self, responder):
        self.h = self.ck = hashlib.blake2s(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s").digest()
        self.mix_hash(b"punchlan\1" + NETWORK_ID + EPOCH)
        self.mix_hash(responder)

    def mix_hash(self, data):
        self.h = hashlib.blake2s(self.h + data).digest()

    def hkdf(self, data, n):
        temp, t, out = hmac.new(self.ck, data, hashlib.blake2s).digest(), b"", []
        for i in range(1, n + 1):
            t = hmac.new(temp, t + bytes([i]), hashlib.blake2s).digest()
            out.append(t)
        return out

    def mix_key(self, data):
        self.ck, self.k = self.hkdf(data, 2)
        self.n = 0

    def mix_key_and_hash(self, data):
        self.ck, h, self.k = self.hkdf(data, 3)
        self.n = 0
        self.mix_hash(h)

    def seal(self, text):
        sealed = ChaCha20Poly1305(self.k).encrypt(bytes(4) + struct.pack("<Q", self.n), text, self.h)
        self.n += 1
        self.mix_hash(sealed)
        return sealed

    def ephemeral(self, public):
        self.mix_hash(public)
        self.mix_key(public)
        return public


def dh(secret, public):
    return secret.exchange(X25519PublicKey.from_public_bytes(public))


def with_mac1(message, receiver):
    key = hkdf(b"", of_network(b"mac1"), b"mac1 receiver", receiver)
    return message + mac(key, message)[:16] + bytes(16)


def u24(n):
    return struct.pack(">I", n)[1:]


def padded(payload):
    return payload + bytes(520 - len(payload))


def with_len(data):
    return struct.pack(">H", len(data)) + data


noise = Noise(B.x25519)
e_a, e_b = X25519PrivateKey.from_private_bytes(EPHEMERAL_A), X25519PrivateKey.from_private_bytes(EPHEMERAL_B)
message = noise.ephemeral(e_a.public_key().public_bytes_raw())
noise.mix_key(dh(e_a, B.x25519))
message += noise.seal(A.x25519)
noise.mix_key(dh(A.dh, B.x25519))
message += noise.seal(padded(struct.pack(">QIB", NUMBER, 5, 3) + with_len(announcement(A))))
initiation = with_mac1(b"\xe2" + u24(INDEX_A) + b"\1" + bytes(3) + message, B.id)

message = noise.ephemeral(e_b.public_key().public_bytes_raw())
noise.mix_key(dh(e_b, e_a.public_key().public_bytes_raw()))
noise.mix_key(dh(e_b, A.x25519))
noise.mix_key_and_hash(PSK)
message += noise.seal(padded(struct.pack(">IB", 5, 1) + with_len(announcement(B))))
response = with_mac1(b"\xe3" + u24(INDEX_B) + b"\1" + u24(INDEX_A) + message, A.id)
a_to_b, b_to_a = noise.hkdf(b"", 2)


def packet(kind, label, key, index, counter, inner):
    header = bytes([kind]) + u24(index) + struct.pack(">I", counter)
    cipher = AESGCM(hkdf(b"", key, label, b"\1"))
    return header + cipher.encrypt(bytes(8) + struct.pack(">I", counter), inner, header)


def probe(me, peer):
    keys = hkdf(of_network(b"probe"), dh(me.dh, peer.x25519), b"probe direction", me.id, peer.id, length=40)
    text = b"\xe5\1\0\0" + keys[:8] + struct.pack(">QQ", NUMBER, 6) + bytes(18)
    return text + mac(keys[8:], text)[:16]


def sealed_announcement(signed):
    key = hkdf(SALT, of_network(b"announcement seal", EPOCH), b"announcement")
    text = with_len(signed)
    return SALT + ChaCha20Poly1305(key).encrypt(bytes(12), text + bytes(480 - len(text)), NETWORK_ID)


def derived(label, *context, length):
    return hkdf(b"", ADDRESSES, label, *context, length=length)


for name, value in {
    "network_id": NETWORK_ID,
    "psk": PSK,
    "peer_a": A.id,
    "x25519_a": A.x25519,
    "ula_a": b"\xfd" + derived(b"ula", length=5) + bytes(2) + derived(b"interface", A.id, length=8),
    "subnet_hash": derived(b"subnet", length=2),
    "ipv4_hash_a_1": derived(b"ipv4", A.id, b"\0\0\0\1", length=8),
    "announcement_a": announcement(A),
    "sealed_announcement_a": sealed_announcement(announcement(A)),
    "probe_a_to_b": probe(A, B),
    "initiation": initiation,
    "response": response,
    "nothing_a_to_b": packet(0xE1, b"transport control", a_to_b, INDEX_B, 0, b"\0"),
    "nothing_b_to_a": packet(0xE1, b"transport control", b_to_a, INDEX_A, 0, b"\0"),
    "data_a_to_b": packet(0xE0, b"transport data", a_to_b, INDEX_B, 0, b"\1packet"),
    "data_b_to_a": packet(0xE0, b"transport data", b_to_a, INDEX_A, 0, b"\1packet"),
}.items():
    print(name, value.hex())
