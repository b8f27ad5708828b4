// Fades the heat maps of a patient's radiographs.
(() => {
  "use strict";
  document.querySelectorAll("input[data-fades]").forEach((slider) => {
    const heat = document.querySelector(`#${slider.dataset.fades} .heat`);
    const told = slider.parentElement.querySelector("output");
    const fade = () => {
      heat.style.opacity = String(slider.valueAsNumber / 100);
      told.textContent = `${slider.value}%`;
      slider.setAttribute("aria-valuetext", `${slider.value}%`);
    };
    slider.addEventListener("input", fade);
    fade();
    slider.parentElement.hidden = false;
  });
})();
