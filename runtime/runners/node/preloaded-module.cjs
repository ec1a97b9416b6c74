// Loaded once before any function, so that the CommonJS loader is warm.
module.exports = { loaded: true };
