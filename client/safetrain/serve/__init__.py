"""`safetrain serve`: OpenAI's chat-completions interface, on loopback, over the daemon's answers.

server              the command's end: the loopback socket, the token, uvicorn
routes              the models and the chat completions
access              who may ask: Host and bearer token
served              which job or model a server answers with
completion_request  a request's JSON, checked, as the daemon's AskRequest; pure
completion_json     answers, chunks of a stream and usage as JSON; pure
api_errors          errors in OpenAI's form; pure
answer_stream       a question's way to the daemon, in turn with the others, and its answer's back

The interface: https://platform.openai.com/docs/api-reference/chat
"""
