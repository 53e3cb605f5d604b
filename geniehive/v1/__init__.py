"""The contract: generated from protos/geniehive/v1 by protos/generate.py. Do not edit."""
