"""WHAT is customized: subjects, their photos and masks, prompts, and composed scenes.

Import from the modules: `subject`, `masks`, `prompt`, `scene`.
"""
