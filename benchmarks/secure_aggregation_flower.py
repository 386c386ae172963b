"""What a client and the server of Flower's SecAgg+ compute in a round, with Flower's own primitives, step by step."""

import os
import time
from dataclasses import dataclass

import numpy as np
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_combine,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import (
    pseudo_rand_gen,
    share_keys_plaintext_concat,
    share_keys_plaintext_separate,
)
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)
from numpy.typing import NDArray

# The defaults of Flower's SecAggPlusWorkflow.
_CLIPPING, _TARGET, _MODULUS = 8.0, 1 << 22, 1 << 32


@dataclass(frozen=True)
class FlowerCost:
    """client, server: CPU seconds for one client's part of a round. bytes: of one client, up and down."""

    client: float
    server: float
    bytes: int


def flower_round(vector: NDArray[np.float64], *, degree: int, threshold: int) -> FlowerCost:
    """Do one client's part, and the server's part for that client, in a round in which nobody vanishes."""
    peers = [generate_key_pairs() for _ in range(degree)]
    publics = [public_key_to_bytes(public) for _, public in peers]
    started = time.process_time()
    (mask_key, mask_public), (share_key, share_public) = generate_key_pairs(), generate_key_pairs()
    raw_mask_key, raw_share_key = private_key_to_bytes(mask_key), private_key_to_bytes(share_key)
    own_publics = [public_key_to_bytes(mask_public), public_key_to_bytes(share_public)]
    seed = os.urandom(32)
    seed_shares = create_shares(seed, threshold, degree + 1)
    key_shares = create_shares(raw_mask_key, threshold, degree + 1)
    shared, sealed = [], []
    for number, public in enumerate(publics):
        shared.append(generate_shared_key(bytes_to_private_key(raw_share_key), bytes_to_public_key(public)))
        plain = share_keys_plaintext_concat(0, number + 1, seed_shares[number + 1], key_shares[number + 1])
        sealed.append(encrypt(shared[-1], plain))
    # Everybody sends to and gets from as many, so its own sealed shares stand for those that it gets.
    received = [share_keys_plaintext_separate(decrypt(key, raw))[2] for key, raw in zip(shared, sealed, strict=True)]
    words = factor_combine(_TARGET, quantize([vector], _CLIPPING, _TARGET))
    shapes = [entry.shape for entry in words]
    words = parameters_addition(words, pseudo_rand_gen(seed, _MODULUS, shapes))
    for number, public in enumerate(publics):
        key = generate_shared_key(bytes_to_private_key(raw_mask_key), bytes_to_public_key(public))
        combine = parameters_addition if number % 2 else parameters_subtraction
        words = combine(words, pseudo_rand_gen(key, _MODULUS, shapes))
    words = parameters_mod(words, _MODULUS)
    client = time.process_time() - started
    started = time.process_time()
    recovered = combine_shares(seed_shares[:threshold])
    parameters_subtraction(words, pseudo_rand_gen(recovered, _MODULUS, shapes))
    server = time.process_time() - started
    if recovered != seed:
        raise RuntimeError("Flower's shares do not give the seed back")
    keys = sum(map(len, own_publics)) * (1 + degree)
    total = keys + 2 * sum(map(len, sealed)) + sum(entry.nbytes for entry in words) + sum(map(len, received))
    return FlowerCost(client, server, total)
