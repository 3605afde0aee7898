"""Text as token ids: text tokenizers, and conversations in the format of a model."""
