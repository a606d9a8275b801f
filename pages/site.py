"""All pages of the app, at their addresses."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from pages import evaluate, lab, train
from pages.backend import LateEvaluations, LateLab

KEEP_FILES_S = 3600  # of what passes through Gradio


def build_site(late_lab: LateLab, *, trainer: Callable[[], Any]) -> gr.Blocks:
    """Make the app; its pages come up without what stands behind them, which takes seconds."""
    with gr.Blocks(
        title="SRE Lab", analytics_enabled=False, delete_cache=(KEEP_FILES_S, KEEP_FILES_S)
    ) as site:
        gr.Navbar(main_page_name="Lab")
        lab.build(late_lab)
    with site.route("Train", "/train"):
        gr.Navbar(main_page_name="Lab")
        train.build(trainer, late_lab)
    with site.route("Evaluate", "/evaluate"):
        gr.Navbar(main_page_name="Lab")
        evaluate.build(LateEvaluations(late_lab))
    return site
