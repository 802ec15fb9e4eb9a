// Four calls a task through promptfoo's own client and cache.
import promptfoo from 'promptfoo';

export default class {
  id() {
    return 'chain';
  }

  async callApi(prompt) {
    const texts = [''];
    for (let step = 1; step <= Number(process.env.SPEED_STEPS); step++) {
      const content = `task ${prompt} step ${step} ${texts[step - 1].slice(0, 60)}`;
      const body = JSON.stringify({ model: 'x', messages: [{ role: 'user', content }], temperature: 0, max_tokens: 64 });
      const request = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body };
      const { data } = await promptfoo.cache.fetchWithCache(`${process.env.SPEED_URL}/v1/chat/completions`, request, 60000);
      texts.push(data.choices[0].message.content);
    }
    return { output: JSON.stringify(texts.slice(1)) };
  }
}
