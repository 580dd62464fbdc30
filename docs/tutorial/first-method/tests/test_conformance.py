"""A test for each check of the conformance suite."""

import pytest


@pytest.mark.conformance("first-method")
def test_conformance(fsb_check):
    fsb_check()
