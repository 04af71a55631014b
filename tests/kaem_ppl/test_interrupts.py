"""Ctrl-C in a callback, where Python drops it, reaches whoever called."""

import gc
import os
import signal
import sys
import time
import weakref

import pytest

from kaem_ppl.progress import Progress


@pytest.fixture
def pythons_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def in_a_callback():
    """A function that ends in a callback of the kind asked for, in which the other one given is called."""
    added = []

    def call(where, function):
        calls = []

        def once(*_):
            if not calls:
                calls.append(where)
                function()

        class Dies:
            def __del__(self):
                if where == "__del__":
                    once()

        dies = Dies()
        reference = weakref.ref(dies, once if where == "weak reference" else None)
        if where == "garbage collector":
            added.append(once)
            gc.callbacks.append(once)
            gc.collect()
        del dies
        assert reference() is None
        assert calls == [where]

    yield call
    for callback in added:
        gc.callbacks.remove(callback)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)


@pytest.mark.parametrize("where", ["garbage collector", "weak reference", "__del__"])
def test_ctrl_c_in_a_callback_is_heard(pythons_handler, in_a_callback, where, capfd):
    before = sys.unraisablehook

    def work():
        with Progress("working", is_shown=False), Progress("deeper", is_shown=False):
            in_a_callback(where, interrupt)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert capfd.readouterr().err == ""
    assert sys.unraisablehook is before


def test_other_errors_are_reported_as_before(pythons_handler, in_a_callback, monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda x: reported.append(x.exc_type))

    def fail():
        raise ValueError("of the callback")

    with Progress("working", is_shown=False):
        in_a_callback("weak reference", fail)
    # A handler that is not Python's has its own way to be heard.
    signal.signal(signal.SIGINT, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with Progress("working", is_shown=False):
        in_a_callback("weak reference", interrupt)
        time.sleep(0.2)
    assert reported == [ValueError, KeyboardInterrupt]
