// The form to log in: the secret goes over a WebSocket, so that it is in no address.
"use strict";

const form = document.getElementById("form");
const told = document.getElementById("told");

form.addEventListener("submit", (event) => {
  event.preventDefault();
  told.textContent = "";
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/login`);
  socket.onopen = () => socket.send(document.getElementById("secret").value);
  socket.onmessage = (message) => {
    const { ticket } = JSON.parse(message.data);
    if (ticket) location.replace(`/?ticket=${encodeURIComponent(ticket)}${location.hash}`);
    else told.textContent = "That is not it.";
    socket.onclose = null;
  };
  socket.onclose = () => { told.textContent = "The server hung up; try again in a moment."; };
});
