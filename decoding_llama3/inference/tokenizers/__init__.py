"""Tokenizers of other models than Llama 3, where each is found, and the chat formats of instruct models."""
