"""The demo of examples/orders, on any backend."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx

from support.demos import Demo, as_request, paste, start_demo


def start_orders(folder: Path, **env: str) -> Demo:
    return start_demo(folder, EXAMPLE="orders", **env)


def run_the_lines(demo: Demo) -> None:
    """Place an order, read its invoice, change the text, and see an order cancelled whose invoice is refused."""
    place, read, download, upload, place_too_much, read_cancelled = demo.lines_to_paste

    paste(place)
    demo.expect("Order lamps is invoiced")
    assert (paste(read)["status"], paste(read)["customer"]) == ("invoiced", "ann")
    invoice = httpx.request(**as_request(download))
    assert invoice.headers["content-type"] == "text/plain; charset=utf-8"
    assert invoice.text == "Invoice for order lamps\nlamp: 39.80 EUR\n"  # the euros come from the upcast

    assert paste(upload) == {"bytes": len("Two lamps, as agreed.")}
    assert httpx.request(**as_request(download)).text == "Two lamps, as agreed."

    paste(place_too_much)
    demo.expect("Order chandeliers is cancelled")
    cancelled = paste(read_cancelled)
    assert (cancelled["status"], cancelled["reason"]) == ("cancelled", "3800 EUR is more than 1000.")


def run_the_lines_and_stop(folder: Path, **env: str) -> None:
    """Start the demo, run its lines, and stop it: both services drain, and the exit status is 0."""
    demo = start_orders(folder, **env)
    try:
        run_the_lines(demo)
    finally:
        demo.send(signal.SIGTERM)
        status = demo.wait()
        demo.kill()
    assert status == 0
    assert "orders has stopped" in demo.output
    assert "invoices has stopped" in demo.output
    assert "Traceback" not in demo.output
