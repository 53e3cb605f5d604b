// Run by test_agents next to the openai package of npm; prints what it saw as JSON.
// The base URL, the key and the model come as arguments.
import OpenAI, { toFile } from "openai";

const [baseURL, apiKey, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 10_000 });
const messages = [{ role: "user", content: "hello" }];
const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];

async function refusal(call) {
  try {
    await call();
    return "nothing";
  } catch (error) {
    return `${error.constructor.name} ${error.status} ${error.code}`;
  }
}

const seen = {};
seen.text = (await client.chat.completions.create({ model, messages })).choices[0].message.content;

seen.streamed = "";
seen.usages = [];
const stream_options = { include_usage: true };
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true, stream_options })) {
  seen.streamed += chunk.choices[0]?.delta?.content ?? "";
  if (chunk.usage) seen.usages.push(chunk.usage.completion_tokens);
}

const called = await client.chat.completions.create({ model, messages, tools });
seen.tool = called.choices[0].message.tool_calls[0].function.name;

seen.responses = "";
for await (const event of await client.responses.create({ model, input: "hello", stream: true })) {
  if (event.type === "response.output_text.delta") seen.responses += event.delta;
}

seen.vectors = (await client.embeddings.create({ model, input: ["a", "b"] })).data.map((one) => one.embedding.length);
seen.picture = (await client.images.generate({ model, prompt: "a bee" })).data[0].b64_json.length > 50;
const sound = await client.audio.speech.create({ model, voice: "alloy", input: "hello", response_format: "wav" });
seen.sound = (await sound.arrayBuffer()).byteLength;
const file = await toFile(Buffer.alloc(100_000, 1), "a.wav");
seen.heard = (await client.audio.transcriptions.create({ model, file })).text;
seen.missing = await refusal(() => client.chat.completions.create({ model: "none", messages }));
const stranger = new OpenAI({ baseURL, apiKey: "ghc_wrong", maxRetries: 0 });
seen.stranger = await refusal(() => stranger.chat.completions.create({ model, messages }));

// A client that leaves in the middle.
const left = await client.chat.completions.create({ model, messages, stream: true });
for await (const chunk of left) {
  left.controller.abort();
  break;
}
console.log(JSON.stringify(seen));
