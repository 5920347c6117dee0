"""The conversation of a person with what serves, the queue of turns that want several people, and the stream of replies."""
