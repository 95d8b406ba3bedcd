// Elements of the page. Texts go in by textContent, so that no text of a mail is read as HTML.
export const $ = (id) => document.getElementById(id);

export const make = (tag, fields = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...children);
  return element;
};

// Whether a relay refuses for now, by its reply: otpmail tries again.
export const isDeferred = (reply) => reply.startsWith("4");

export const pairs = (list) =>
  list.flatMap(([name, value]) => [
    make("dt", { textContent: name }),
    make("dd", { dir: "auto" }, value),
  ]);

// Buttons of which one at most is pressed. They stay as they are, so that the focus does too. Returns what presses one.
export const choices = (group, names, chosen, act) => {
  const buttons = names.map((name) => make("button", { type: "button", textContent: name }));
  const press = (name) => {
    for (const one of buttons) one.setAttribute("aria-pressed", String(one.textContent === name));
  };
  for (const one of buttons) {
    one.onclick = () => {
      press(one.textContent);
      act(one.textContent);
    };
  }
  press(chosen);
  group.replaceChildren(...buttons);
  return press;
};

export const copyOnClick = (button, text) => {
  const usual = button.textContent;
  let end = 0;
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied";
    }
    $("said").textContent = button.textContent;
    clearTimeout(end);
    end = setTimeout(() => {
      button.textContent = usual;
      $("said").textContent = "";
    }, 2000);
  };
};

export const size = (octets) => {
  if (octets < 1000) return `${octets} bytes`;
  return octets < 1e6 ? `${(octets / 1000).toFixed(octets < 10_000 ? 1 : 0)} kB` : `${(octets / 1e6).toFixed(1)} MB`;
};
