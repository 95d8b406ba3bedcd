// Elements of the page. Texts go in by textContent, so that no text of a mail is read as HTML.
export const $ = (id) => document.getElementById(id);

export const make = (tag, fields = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...children);
  return element;
};

export const pairs = (list) =>
  list.flatMap(([name, value]) => [
    make("dt", { textContent: name }),
    make("dd", { textContent: value }),
  ]);

// Buttons of which one at most is pressed. They are made once, so that the focus stays where it is.
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
};

export const copyOnClick = (button, text) => {
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };
};
