"""What a template of codes must show: the code, where a reader sees it."""

from time import thread_time

import pytest

from otpmail.compose.checks import shown_in


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        ("a<!-- 1 -->b<!--2--!>c", "abc"),
        ("a<!-->b<!--->c", "abc"),
        ("<head><title>1</title></head>a", "a"),
        ("<HEAD>1</HEAD\n>a<style>2</style >b", "ab"),
        ("<header>a</header><styled>b", "<header>a</header><styled>b"),
        ("<title/>1</title>a<!-- <style> -->b<script>'<!--'</script>c", "abc"),
        ("a<!-- 1", "a"),
        ("a<style>1</styled>2", "a"),
        ("<head>a<title>1</title>b<head>c", ">ab<head>c"),
    ],
)
def test_what_a_reader_sees(html: str, shown: str) -> None:
    """Neither comments nor the head, styles, scripts and titles; without an end each but a head hides the rest."""
    assert shown_in(html) == shown


@pytest.mark.parametrize("opened", ["<!--", "<head", "<head >", "<style ", "<script>", "<title></", "<style></style "])
def test_what_has_no_end_is_looked_at_once(opened: str) -> None:
    """The time grows with the text: a search for the same end from each opening would take half an hour here."""
    started = thread_time()
    shown = shown_in(f"seen{opened * 200_000}")
    assert shown.startswith("seen")
    assert thread_time() - started < 10
