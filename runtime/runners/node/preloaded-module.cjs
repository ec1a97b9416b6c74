// Loaded before any function, so that the CommonJS loader is warm.
exports.handler = async () => null;
