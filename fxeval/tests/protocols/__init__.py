"""Protocols that are no checks of fxeval: they show what the contract carries."""

from fxeval.tests.protocols import (
    agreement,
    occlusion,
    regions,
    retention,
    retention_of_pairs,
    retention_of_triplets,
    verification_under_occlusion,
)

KINDS = {
    "toy.occlusion": occlusion,
    "toy.agreement": agreement,
    "toy.regions": regions,
    "toy.retention": retention,
    "toy.retention_of_pairs": retention_of_pairs,
    "toy.retention_of_triplets": retention_of_triplets,
    "toy.verification": verification_under_occlusion,
}
