"""The tokenizer for transformers: expressions are cleaned and cut as `igvg predict` does."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.tokenization_utils_base import BatchEncoding

from pipelines.data.tokenizer import check_expressions, clean_expression
from pipelines.data.truncation import warn_of_truncation


class IGVGTokenizer(PreTrainedTokenizerFast):  # type: ignore[misc]  # transformers has no types
    """The tokenizer of a checkpoint folder, for programs that give expressions to it as they are, as pipelines do."""

    def __call__(self, text: Any = None, *inputs: Any, **options: Any) -> BatchEncoding:
        """As in transformers, with two differences.

        Expressions are cleaned: lower case, without punctuation. Unless `truncation` says otherwise, what has more
        tokens than the network takes (`model_max_length`) is cut off, with a warning.

        Raises:
            SettingsError: an expression has no word.
        """
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
            return super().__call__(text, *inputs, **options)
        check_expressions(texts)
        cleaned = [clean_expression(each) for each in texts]
        if "truncation" not in options:
            warn_of_truncation(self, texts, self.model_max_length)
            options |= {"truncation": True}
        return super().__call__(cleaned[0] if isinstance(text, str) else cleaned, *inputs, **options)
