"""The look of every page: system fonts, quiet greys, and contrast that can be read."""

import gradio as gr

# Gradio's default fonts come from Google; these are on every machine.
SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def make_theme() -> gr.themes.Base:
    """The app's theme; the default subdued text, at 1.9:1, is too pale to read."""
    return gr.themes.Base(
        primary_hue="indigo", neutral_hue="zinc", font=list(SANS), font_mono=list(MONO)
    ).set(
        body_background_fill="#ffffff",
        body_background_fill_dark="#131316",
        body_text_color="#18181b",
        body_text_color_dark="#ececef",
        body_text_color_subdued="#52525b",
        body_text_color_subdued_dark="#c4c4cc",
    )
